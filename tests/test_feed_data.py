"Coat and Yahoo! R3: the official layouts, their faults, the twins, and their places in the catalogue"
import os, shutil, subprocess, sys, zipfile

import numpy as np, pandas as pd, pytest
from scipy.spatial.distance import pdist
from conftest import one_line
from rlrec.core import ConfigError, DataError, cache_dir, data_dir
from rlrec.data import catalogue, coat, yahoo
from rlrec.data.base import gini
from rlrec.data.coat import anchors, find_coat, load_coat, synthetic_coat
from rlrec.data.feed import kept_folder
from rlrec.data.yahoo import find_yahoo, load_yahoo, synthetic_yahoo

def twin_files(name):
    "The one folder of the cache that a twin was written to"
    found = list(cache_dir('twins').glob(f'{name}-*'))
    assert len(found) == 1
    return found[0]

def same(a, b):
    for k in ('train', 'test', 'items', 'users'): pd.testing.assert_frame_equal(getattr(a, k), getattr(b, k))
    assert a.fingerprint == b.fingerprint and np.array_equal(a.truth, b.truth) and np.array_equal(a.distance, b.distance)

# ------------------------------------------------------------------------------------------------ Coat, real

@pytest.fixture
def real_coat(real_data):
    if not find_coat(): pytest.skip(f'Coat is incomplete in {real_data("coat")}')
    return load_coat()

def test_the_real_coat(real_coat):
    d = real_coat
    assert d.truth.shape == (290, 300) and d.truth.dtype == np.float32 and (len(d.train), len(d.test)) == (6960, 4640)
    assert round(d.train.value.mean(), 3) == 2.611 and round(d.test.value.mean(), 3) == 2.229
    assert set(d.train.groupby('user').size()) == {24} and set(d.test.groupby('user').size()) == {16}
    assert np.bincount(d.truth.ravel().astype(int)).tolist() == [0, 12006, 47238, 23287, 4353, 116]
    assert abs(d.truth.mean()-2.2337) < 1e-4 and abs(d.truth.std()-.7504) < 1e-4
    assert (d.exit_rule, d.timed, d.binary, d.positive, d.scale, d.features) == ('distance', False, False, 4., (1., 5.), ('gender', 'jacket_type', 'colour', 'on_front_page'))
    for part, agree, corr in ((d.train, .33, .45), (d.test, .52, .81)):
        told = d.truth[part.user, part['item']]
        assert abs((told == part.value).mean()-agree) < .005 and abs(np.corrcoef(told, part.value)[0, 1]-corr) < .005

def test_the_anchors_of_the_real_coat(real_coat):
    "Computed here from the table alone, and by the exported function"
    t, log = real_coat.truth.astype(float), real_coat.train
    n, total = np.zeros(300), np.zeros(300)
    np.add.at(n, log['item'], 1); np.add.at(total, log['item'], log.value)
    popular = np.lexsort((np.arange(300), -total/n))[:30]
    found = [30*t.mean(), t[:, popular].sum(1).mean(), np.sort(t.mean(0))[::-1][:30].sum(), np.sort(t, 1)[:, ::-1][:, :30].sum(1).mean()]
    assert np.allclose(found, [67.01, 78.40, 84.11, 88.15], atol=.005)
    assert np.allclose(anchors(real_coat), found, rtol=1e-5)

def test_the_distances_of_the_real_coat(real_coat):
    d = real_coat.distance[np.triu_indices(300, 1)]
    assert np.array_equal(real_coat.distance, real_coat.distance.T) and not np.diag(real_coat.distance).any()
    assert np.allclose(d, pdist(real_coat.truth.T), rtol=1e-6)
    assert np.allclose(np.percentile(d, [0, 1, 5, 25, 50, 75, 100]), [3.7, 5.7, 6.8, 8.9, 10.7, 13.1, 30.9], atol=.06)
    assert abs((d < 6).mean()-.017) < .001 and abs((d < 10).mean()-.40) < .01

def test_the_properties_of_the_real_coat(real_coat):
    "Decoded blocks, put back, are the file"
    source = coat.Archive(find_coat())
    for kind, table, widths in (('user', real_coat.users, (2, 6, 3, 3)), ('item', real_coat.items, (2, 16, 13, 2))):
        blocks = [np.eye(w)[table[c]] for c, w in zip(coat.FIELDS[kind].values(), widths)]
        assert np.array_equal(np.concatenate(blocks, 1), np.loadtxt(source.read(f'{kind}_features.ascii').decode().splitlines()))
    assert real_coat.items.title[0] == 'men, bomber, other' and real_coat.items.categories[0] == ('bomber',)

def test_the_propensities_of_the_real_coat(real_coat):
    p = np.loadtxt(coat.Archive(find_coat()).read('propensities.ascii').decode().splitlines())
    assert np.allclose(real_coat.train.propensity, p[real_coat.train.user, real_coat.train['item']])
    assert 'propensity' not in real_coat.test

def test_the_real_coat_unpacked_is_the_same(real_coat, tmp_path):
    zipfile.ZipFile(find_coat()).extractall(tmp_path) if find_coat().suffix == '.zip' else shutil.copytree(find_coat(), tmp_path/'coat')
    shutil.copy(data_dir()/'coat'/coat.TABLE, tmp_path)
    same(load_coat(tmp_path), real_coat)

# ------------------------------------------------------------------------------------------------ Coat, layout and faults

@pytest.fixture
def unpacked(home):
    "A small twin, unpacked under RLREC_DATA"
    synthetic_coat(size=.1)
    shutil.copytree(twin_files('coat'), home/'coat')
    zipfile.ZipFile(home/'coat'/'coat.zip').extractall(home/'coat'); (home/'coat'/'coat.zip').unlink()
    return home/'coat'

def test_zip_folder_and_bare_files_are_the_same(unpacked):
    d = load_coat(); same(d, synthetic_coat(size=.1).replace(name='coat'))
    assert find_coat() == unpacked/'coat' and d.name == 'coat' and synthetic_coat(size=.1).name == 'synthetic-coat'
    for p in list((unpacked/'coat').iterdir()): shutil.move(p, unpacked)
    (unpacked/'coat').rmdir()
    assert find_coat() == unpacked; same(load_coat(), d)

def test_line_ends_and_blanks_do_not_matter(unpacked):
    d = load_coat()
    for p in unpacked.rglob('*.ascii'): p.write_bytes(b''.join(b' ' + l.replace(b' ', b'\t', 3).replace(b' ', b'  ', 3) + b' \r\n' for l in p.read_bytes().splitlines()))
    for p in unpacked.rglob('*_map.txt'): p.write_bytes(p.read_bytes().replace(b'\n', b'\r\n')+b'\r\n')
    e = load_coat()
    assert d.train.equals(e.train) and d.users.equals(e.users) and np.array_equal(d.truth, e.truth) and d.fingerprint != e.fingerprint

def test_numbers_may_be_written_as_floats(unpacked):
    d, p = load_coat(), unpacked/coat.TABLE
    np.savetxt(p, np.loadtxt(p))
    assert np.array_equal(load_coat().truth, d.truth)

def lines(edit):
    "A fault made by editing the list of lines"
    def spoil(path): path.write_bytes(b'\n'.join(edit(path.read_bytes().splitlines()))+b'\n')
    return spoil
def cell(row, col, value):
    def edit(rows): cells = rows[row].split(); cells[col] = value; rows[row] = b' '.join(cells); return rows
    return lines(edit)
def empty(path): path.write_bytes(b'')
def page(path): path.write_bytes(b'<html> <body>not found</body></html>')

COAT_FAULTS = [
    ('train.ascii', cell(2, 4, b'7'), 'train.ascii, line 3: column 5 holds 7 instead of a whole number from 0 to 5'), ('train.ascii', cell(0, 0, b'-1'), 'line 1: column 1 holds -1'),
    ('train.ascii', cell(1, 3, b'2.5'), 'line 2: column 4 holds 2.5'), ('train.ascii', cell(1, 3, b'nan'), 'line 2: column 4 holds nan'), ('train.ascii', cell(5, 1, b'five'), "line 6: column 2 holds 'five', which is not a number"),
    ('train.ascii', lines(lambda r: r[:3]+[r[3][:-4]]+r[4:]), 'line 4: 28 columns instead of 30'), ('train.ascii', empty, 'no rows'), ('train.ascii', page, 'train.ascii, line 1: column 1 holds .<html>'),
    ('train.ascii', lines(lambda r: [b' '.join([b'0']*30)]*29), 'every number is 0'), ('train.ascii', lines(lambda r: r[:-1]), 'test.ascii: 29 x 30 numbers instead of 28 x 30 as in train.ascii'),
    ('test.ascii', lines(lambda r: r[:-1]), 'test.ascii: 28 x 30 numbers instead of 29 x 30 as in train.ascii'), ('test.ascii', os.remove, 'there is no test.ascii in it'), ('test.ascii', cell(0, 0, b'6'), 'test.ascii, line 1'),
    ('propensities.ascii', cell(3, 2, b'0'), 'propensities.ascii, line 4: column 3 holds 0 instead of a number from'), ('propensities.ascii', cell(3, 2, b'1.2'), 'line 4: column 3 holds 1.2'), ('propensities.ascii', os.remove, 'there is no propensities.ascii'),
    ('user_features.ascii', cell(1, 0, b'2'), 'user_features.ascii, line 2: column 1 holds 2'), ('item_features.ascii', lines(lambda r: [b' '.join([b'1']*33)]+r[1:]), "item_features.ascii, line 1: 2 answers to 'gender'"),
    ('item_features.ascii', lines(lambda r: r+r[-1:]), 'item_features.ascii: 31 rows for 30 items'), ('user_features.ascii', lines(lambda r: [x[:-2] for x in r]), 'line 1: 13 columns instead of 14'),
    ('user_features_map.txt', lines(lambda r: r[:-1]), 'user_features.ascii, line 1: 14 columns instead of 13'), ('item_features_map.txt', lines(lambda r: [b'nonsense']+r[1:]), "item_features_map.txt, line 1: 'nonsense' is not of the form"),
    ('item_features_map.txt', lines(lambda r: [x.replace(b'color', b'colour') for x in r]), 'has the questions gender, jackettype, colour'), ('item_features_map.txt', os.remove, 'there is no item_features_map.txt'),
    (coat.TABLE, cell(4, 9, b'0'), 'ratingM.ascii, line 5: column 10 holds 0 instead of a whole number from 1 to 5'), (coat.TABLE, lines(lambda r: r[:-2]), '27 x 30 numbers instead of 29 x 30'),
    (coat.TABLE, lines(lambda r: [x[:-2] for x in r]), '29 x 29 numbers instead of 29 x 30'), (coat.TABLE, empty, 'no rows'), (coat.TABLE, os.remove, 'there is no such file; take the completed table')]

@pytest.mark.parametrize('file,spoil,says', COAT_FAULTS, ids=[f'{f}-{i}' for i, (f, _, _) in enumerate(COAT_FAULTS)])
def test_coat_faults(unpacked, file, spoil, says):
    spoil(next(unpacked.rglob(file)))
    with pytest.raises(DataError, match=says) as e: load_coat()
    one_line(e)

def test_a_zip_cut_short(home):
    synthetic_coat(size=.1); shutil.copytree(twin_files('coat'), home/'coat')
    z = home/'coat'/'coat.zip'
    z.write_bytes(z.read_bytes()[:-30])
    with pytest.raises(DataError, match='coat.zip: not a complete zip') as e: load_coat()
    one_line(e)

def test_nothing_there(home):
    assert find_coat() is None and find_yahoo() is None
    for load, says in ((load_coat, '`rlrec data get coat` fetches it, or use dataset synthetic-coat'), (load_yahoo, 'synthetic-yahoo-r3, which needs no file')):
        with pytest.raises(DataError, match=says) as e: load()
        one_line(e)

# ------------------------------------------------------------------------------------------------ the twin of Coat

@pytest.mark.parametrize('seed', range(4))
def test_the_twin_of_coat_is_like_the_real_one(home, seed):
    d = synthetic_coat(seed=seed)
    assert d.truth.shape == (290, 300) and (len(d.train), len(d.test)) == (6960, 4640) and d.features == ('gender', 'jacket_type', 'colour', 'on_front_page')
    assert np.bincount(d.truth.ravel().astype(int))[1:].tolist() == list(coat.COUNTS['table'])
    assert 2.5 < d.train.value.mean() < 2.7 and 2.15 < d.test.value.mean() < 2.3
    told = lambda part: np.corrcoef(d.truth[part.user, part['item']], part.value)[0, 1]
    assert .35 < told(d.train) < .55 and .75 < told(d.test) < .87
    n = np.bincount(d.train['item'], minlength=300)
    assert .22 < gini(n) < .36 and abs(np.corrcoef(n, d.truth.mean(0))[0, 1]) < .4
    assert .5 < d.truth.mean(1).std() < .62 and .25 < d.truth.mean(0).std() < .38
    a = anchors(d)
    assert abs(a.random-67.01) < .01 and 74 < a.popularity < 82 and 81 < a.best_list < 87 and 86 < a.oracle < 91 and a.is_monotonic_increasing
    same_gender = d.users.gender.to_numpy()[d.train.user] == d.items.gender.to_numpy()[d.train['item']]
    assert .82 < same_gender.mean() < .92
    assert 3 < np.percentile(d.distance[np.triu_indices(300, 1)], 1) < 7 and d.distance.max() > 25

def test_there_is_something_to_learn(home):
    "Beyond the means of users and items the table has a few strong directions, and the items' features tell of them"
    d = synthetic_coat()
    rest = d.truth - d.truth.mean(1, keepdims=True) - d.truth.mean(0) + d.truth.mean()
    sv = np.linalg.svd(rest, compute_uv=False)
    noise = np.linalg.svd(np.random.default_rng(0).permutation(rest.ravel()).reshape(rest.shape), compute_uv=False)
    assert (sv[:3] > 1.1*noise[0]).all() and sv[3] < sv[2]
    u = np.linalg.svd(rest, full_matrices=False)[2][:3].T
    x = np.concatenate([np.eye(k)[d.items[c]] for c, k in zip(d.features, (2, 16, 13, 2))], 1)
    fit = x @ np.linalg.lstsq(x, u, rcond=None)[0]
    assert 1-((u-fit)**2).sum()/((u-u.mean(0))**2).sum() > .4

def test_propensities_of_the_twin_are_chances(home):
    "Averaged over seeds the chance of a pair is how often it was chosen"
    p, hit = [], []
    for seed in range(3):
        d = synthetic_coat(seed=seed)
        table = coat.read_matrix(coat.Archive(next(cache_dir('twins').glob(f'*{coat.text_hash(coat.VERSION, 1., seed)}'))/'coat.zip').read('propensities.ascii'), coat.Where('p'))
        assert table.max() <= 1 and np.allclose(table.sum(1), 24, atol=2)
        p.append(table.ravel()); hit.append(d.matrix('train', 0).toarray().ravel())
    p, hit = np.concatenate(p), np.concatenate(hit)
    for lo, hi in ((0, .02), (.02, .05), (.05, .1), (.1, .2), (.2, .4)):
        inside = (p > lo) & (p <= hi)
        assert abs(hit[inside].mean()/p[inside].mean()-1) < .2, (lo, hi)

@pytest.mark.parametrize('make', [synthetic_coat, synthetic_yahoo], ids=['coat', 'yahoo'])
def test_same_seed_same_bytes_in_another_process(home, make, tmp_path):
    a = make(size=.1, seed=7)
    code = f'from rlrec.data.{make.__module__.rpartition(".")[2]} import {make.__name__} as f; print(f(size=.1, seed=7).fingerprint)'
    out = subprocess.run([sys.executable, '-c', code], env=os.environ|{'RLREC_CACHE': str(tmp_path/'other'), 'PYTHONHASHSEED': '1'}, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == a.fingerprint
    here, there = ({p.relative_to(r): p.read_bytes() for p in r.rglob('*') if p.is_file()} for r in (tmp_path/'cache'/'twins', tmp_path/'other'/'twins'))
    assert here == there and len(here) >= 2
    assert make(size=.1, seed=8).fingerprint != a.fingerprint

@pytest.mark.parametrize('make', [synthetic_coat, synthetic_yahoo], ids=['coat', 'yahoo'])
def test_twins_are_cached_by_their_options(home, make):
    seen = {make(size=s, seed=k).fingerprint for s in (.1, .12) for k in (0, 1)}
    assert len(seen) == 4 and len(list(cache_dir('twins').iterdir())) == 4
    times = {p: p.stat().st_mtime_ns for p in cache_dir('twins').rglob('*')}
    assert make(size=.1, seed=0).fingerprint in seen and times == {p: p.stat().st_mtime_ns for p in cache_dir('twins').rglob('*')}

@pytest.mark.parametrize('size', [0, -1, .001, float('nan')])
@pytest.mark.parametrize('make', [synthetic_coat, synthetic_yahoo], ids=['coat', 'yahoo'])
def test_sizes_that_make_no_sense(home, make, size):
    with pytest.raises(ConfigError, match='leaves fewer than 10 users or items; 1 is the size of the original'): make(size=size)
    assert not list(cache_dir('twins').iterdir())

def test_a_folder_is_whole_or_absent(home):
    def half(folder): (folder/'one').write_text('1'); raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): kept_folder('x', half)
    assert not list(cache_dir('twins').iterdir())
    def slower(folder):
        (folder/'a').write_text('mine')
        kept_folder('x', lambda f: (f/'a').write_text('theirs'))
    assert (kept_folder('x', slower)/'a').read_text() == 'theirs' and [p.name for p in cache_dir('twins').iterdir()] == ['x']
    def full(folder): raise OSError(28, 'No space left on device')
    with pytest.raises(OSError, match='No space'): kept_folder('y', full)

def test_two_processes_write_one_twin(home):
    code = 'from rlrec.data.yahoo import synthetic_yahoo; print(synthetic_yahoo(size=.2).fingerprint)'
    both = [subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    out = {p.communicate()[0].strip() for p in both}
    assert all(p.returncode == 0 for p in both) and len(out) == 1 and len(list(cache_dir('twins').iterdir())) == 1

# ------------------------------------------------------------------------------------------------ Yahoo! R3

@pytest.fixture
def music(home):
    "A small twin of Yahoo! R3 under RLREC_DATA"
    synthetic_yahoo(size=.03)
    shutil.copytree(twin_files('yahoo-r3'), home/'yahoo-r3')
    return home/'yahoo-r3'

def test_yahoo_there_and_back(music):
    d, table = load_yahoo(), np.loadtxt(music/yahoo.TABLE)
    assert table.shape == (462, 30) and d.truth.shape == (162, 30) and (d.n_users, d.n_items) == (462, 30)
    assert np.array_equal(d.truth, table[:162]) and np.allclose(d.distance[np.triu_indices(30, 1)], pdist(table.T), rtol=1e-6)
    for part, name in ((d.train, yahoo.TRAIN), (d.test, yahoo.TEST)):
        raw = np.loadtxt(music/name, dtype=int)
        assert np.array_equal(part[['user', 'item', 'value']].to_numpy(int), raw[np.lexsort((raw[:, 1], raw[:, 0]))]-[1, 1, 0]) and not part.time.any()
    assert d.test.user.max() == 161 and (d.items.item_id[0], d.users.user_id[461]) == (1, 462)
    assert (d.exit_rule, d.timed, d.binary, d.positive, d.scale, d.features, d.dense) == ('distance', False, False, 4., (1., 5.), (), ())

def test_the_order_of_a_log_does_not_matter(music):
    d, p = load_yahoo(), music/yahoo.TRAIN
    p.write_text('\n'.join(p.read_text().split('\n')[-2::-1])+'\n')
    assert load_yahoo().train.equals(d.train)

YAHOO_FAULTS = [
    (yahoo.TRAIN, '0\t1\t3\n', 'train.txt, line 1: user id 0 is outside 1-462, the lines of'), (yahoo.TRAIN, '463\t1\t3\n', 'line 1: user id 463 is outside 1-462'), (yahoo.TRAIN, '1\t31\t3\n', 'line 1: song id 31 is outside 1-30'),
    (yahoo.TRAIN, '1\t1\t0\n', 'line 1: rating 0 is outside 1-5'), (yahoo.TRAIN, '1\t1\t3.5\n', "line 1: rating '3.5' is not a whole number"), (yahoo.TRAIN, '1\t1\n', 'line 1: 2 columns instead of 3'),
    (yahoo.TRAIN, '1 1 3\n', 'line 1: 1 columns instead of 3'), (yahoo.TEST, '162\t1\t1\n162\t1\t2\n', 'test.txt, line 2: this user has rated this item before')]

@pytest.mark.parametrize('file,line,says', YAHOO_FAULTS)
def test_yahoo_faults(music, file, line, says):
    (music/file).write_text(line+(music/file).read_text())
    with pytest.raises(DataError, match=says) as e: load_yahoo()
    one_line(e)

@pytest.mark.parametrize('file,spoil,says', [
    (yahoo.TEST, empty, 'test.txt: no rows'), (yahoo.TEST, os.remove, f"there is no {yahoo.TEST}; ask Yahoo's Webscope program"), (yahoo.TABLE, os.remove, f'there is no {yahoo.TABLE}; take it from the data that go with RL4Rec'),
    (yahoo.TABLE, lines(lambda r: r[:100]), 'train.txt, line .*: user id 101 is outside 1-100, the lines of yahoo_pseudoGT_ratingM.ascii; .*fetch the table again'), (yahoo.TABLE, cell(7, 0, b'6'), 'line 8: column 1 holds 6'),
    (yahoo.TABLE, page, 'column 1 holds'), (yahoo.TABLE, lines(lambda r: r[:5]+[b'1 2 3']+r[5:]), 'line 6: 3 columns instead of 30')])
def test_yahoo_files_that_are_wrong(music, file, spoil, says):
    spoil(music/file)
    with pytest.raises(DataError, match=says) as e: load_yahoo()
    one_line(e)

@pytest.mark.parametrize('size', [.1, .2])
def test_the_twin_of_yahoo_is_like_the_real_one(home, size):
    d = synthetic_yahoo(size=size)
    share = lambda v: np.bincount(np.asarray(v, int), minlength=6)[1:]/len(v)
    assert abs(len(d.train)/(d.n_users*d.n_items)/.02024-1) < .05 and abs(len(d.test)/d.truth.size-.01) < .001
    for part, counts in ((d.train.value, yahoo.COUNTS['train']), (d.test.value, yahoo.COUNTS['test'])):
        assert np.abs(share(part)-np.divide(counts, sum(counts))).max() < .05
    assert 2.7 < d.train.value.mean() < 3.05 and 1.7 < d.test.value.mean() < 1.95 and abs(d.truth.mean()-1.93) < .03
    n = np.bincount(d.train['item'], minlength=d.n_items)
    assert .35 < gini(n) < .65 and d.train.groupby('user').size().min() >= 1 and anchors(d).is_monotonic_increasing

# ------------------------------------------------------------------------------------------------ the catalogue

FEEDS = 'coat', 'yahoo-r3', 'kuairec', 'kuairand-pure'
TWINS = 'synthetic-coat', 'synthetic-yahoo-r3', 'synthetic-kuairec', 'synthetic-kuairand'

def test_every_feed_and_its_twin_has_a_name(home):
    s = catalogue.status()
    assert not s.available[[*FEEDS]].any() and s.available[[*TWINS]].all()
    assert (s.loc[[*TWINS], 'where'] == 'made from a seed').all() and (s.licence[[*TWINS]] == 'free').all()
    assert set(FEEDS) <= set(catalogue.SOURCES) and set(FEEDS) <= set(catalogue.FINDERS)
    assert 'CC BY-SA 4.0' in s.licence['kuairec'] and 'CC BY-SA 4.0' in s.licence['kuairand-pure'] and 'no networked stores' in s.licence['yahoo-r3']

@pytest.mark.parametrize('name', FEEDS)
def test_absent_sets_name_the_twin(home, name):
    with pytest.raises(DataError, match=f'use dataset synthetic-{name.removesuffix("-pure")}') as e: catalogue.load(name)
    one_line(e)

def test_twins_through_the_catalogue(home):
    for name in TWINS:
        options = dict(size=.1 if name in TWINS[:2] else .02, seed=1)
        d = catalogue.load(name, **options)
        assert d.name == name and d.fingerprint == catalogue.load(name, **options).fingerprint != catalogue.load(name, **options | dict(seed=2)).fingerprint
    card = catalogue.check('synthetic-coat')
    assert card.table == '290 x 300' and 'source' not in card
    with pytest.raises(ConfigError, match="did you mean 'synthetic-coat'"): catalogue.load('sythetic-coat')

def test_what_get_says(home, capsys):
    with pytest.raises(DataError, match="ask Yahoo's Webscope program"): catalogue.get('yahoo-r3')
    assert catalogue.get('synthetic-coat') == 'synthetic-coat needs no download'
    synthetic_coat(size=.1); shutil.copytree(twin_files('coat'), home/'coat')
    assert catalogue.get('coat') == home/'coat'/'coat.zip' and 'Put coat_pseudoGT_ratingM.ascii beside it' in capsys.readouterr().out
    assert catalogue.check('coat')[['table', 'md5']].tolist() == ['29 x 30', 'no official sum'] and catalogue.status().available['coat']

def test_yahoo_in_place_needs_no_download(music):
    assert catalogue.get('yahoo-r3') == music and catalogue.status().available['yahoo-r3']

@pytest.mark.parametrize('name,url', [('coat', 'https://www.cs.cornell.edu/~schnabts/mnar/coat.zip'), ('kuairec', 'https://zenodo.org/records/18164998/files/KuaiRec.zip'),
                                      ('kuairand-pure', 'https://zenodo.org/records/10439422/files/KuaiRand-Pure.tar.gz')])
def test_homes(name, url):
    (file, home_), = catalogue.SOURCES[name]['files'].items()
    assert home_ == dict(url=url, md5=None) and url.endswith('/'+file)
