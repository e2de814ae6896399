"""The data room as a whole: layouts there and back, faults in real archives, the cache, splits, and the real files where they are."""
import os, subprocess, sys, zipfile

import numpy as np, pandas as pd, pytest
from rlrec.core import ConfigError, DataError, cache_dir
from rlrec.data import catalogue
from rlrec.data.base import from_table, split_time, split_user
from rlrec.data.movielens import LAYOUTS, as_tables, find_movielens, load_movielens, write_movielens
from rlrec.data.synthetic import load_synthetic

@pytest.fixture(scope='module')
def twin(): return load_synthetic(n_users=150, n_items=200, ratings_per_user=30, seed=1)

@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('RLREC_CACHE', str(tmp_path/'cache'))
    return lambda: sorted(p.name for p in cache_dir('tables').iterdir())

def ratings(d): return as_tables(d)['ratings']

# --- there and back

@pytest.mark.parametrize('zipped', [False, True], ids=['folder', 'zip'])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_round_trip(twin, layout, zipped, cache, tmp_path):
    back = load_movielens(layout, write_movielens(twin, tmp_path, layout, zipped))
    for part in ('train', 'test'): pd.testing.assert_frame_equal(getattr(back, part), getattr(twin, part))
    for c in ('item_id', 'title', 'categories', 'year', 'tags'): assert back.items[c].tolist() == twin.items[c].tolist(), c
    assert back.users.user_id.tolist() == twin.users.user_id.tolist()
    assert back.scale == LAYOUTS[layout].scale

@pytest.mark.parametrize('layout', ['ml-100k', 'ml-1m'])
def test_user_facts_survive(twin, layout, cache, tmp_path):
    n = twin.n_users
    users = twin.users.assign(gender=['F', 'M'] * (n//2), age=np.arange(n) % 60 + 10, occupation='writer', zip='48067')
    back = load_movielens(layout, write_movielens(twin.replace(users=users), tmp_path, layout)).users
    assert back[users.columns].astype(str).values.tolist() == users.astype(str).values.tolist()

@pytest.mark.parametrize('layout', ['ml-10m', 'ml-20m'])
def test_tags_stop_at_the_split(twin, layout, cache, tmp_path):
    cut = int(twin.test.time.min())
    tags = pd.DataFrame(dict(user=[0, 1, 2, 2], item=[3, 3, 3, 4], tag=['Quiet, slow', 'quiet, slow', 'spoiler', 'on the dot'], time=[cut-2, cut-1, cut+1, cut]))
    back = load_movielens(layout, write_movielens(as_tables(twin) | dict(tags=tags), tmp_path, layout))
    assert back.items.tags[3] == 'quiet, slow' and back.items.tags[4] == ''
    assert (load_movielens(layout, tmp_path/LAYOUTS[layout].folder, tags=False).items.tags == '').all()

def test_the_official_places(twin, cache, tmp_path, monkeypatch):
    monkeypatch.setenv('RLREC_DATA', str(tmp_path/'data'))
    with pytest.raises(DataError, match='rlrec data get ml-10m'): catalogue.load('ml-10m')
    write_movielens(twin, tmp_path/'data'/'ml-10m', 'ml-10m')
    folder = catalogue.load('ml-10m')
    write_movielens(twin, tmp_path/'data'/'ml-10m', 'ml-10m', zipped=True)
    assert find_movielens('ml-10m').name == 'ml-10m.zip'
    pd.testing.assert_frame_equal(catalogue.load('ml-10m').train, folder.train)

# --- faults: each is a small broken archive, and each message is one line with file, line and cure

GOOD = {'ml-1m': {'movies.dat': '1::Heat (1995)::Action|Crime\n2::Amélie (2001)::Comedy\n', 'ratings.dat': '1::1::5::100\n1::2::3::200\n2::1::4::300\n'},
        'ml-20m': {'movies.csv': 'movieId,title,genres\n1,Heat (1995),Action|Crime\n2,Amélie (2001),(no genres listed)\n',
                   'ratings.csv': 'userId,movieId,rating,timestamp\n1,1,5.0,100\n1,2,3.5,200\n2,1,4.0,300\n', 'tags.csv': 'userId,movieId,tag,timestamp\n1,1,"tense, long",150\n'},
        'ml-100k': {'u.genre': 'unknown|0\nComedy|1\n\n', 'u.item': '1|Heat (1995)|01-Jan-1995|||0|1\n2|unknown||||1|0\n', 'u.data': '1\t1\t5\t100\n1\t2\t3\t200\n2\t1\t4\t300\n'}}

def archive(folder, layout, zipped=True, **change):
    "The good files with some replaced (None: left out), as a zip or a folder"
    files = {n: change.get(n.replace('.', '_'), t) for n, t in GOOD[layout].items()}
    data = {n: t if isinstance(t, bytes) else t.encode(LAYOUTS[layout].encoding) for n, t in files.items() if t is not None}
    if zipped:
        with zipfile.ZipFile(folder/f'{layout}.zip', 'w') as z: [z.writestr(f'{LAYOUTS[layout].folder}/{n}', b) for n, b in data.items()]
        return folder/f'{layout}.zip'
    (folder/layout).mkdir(exist_ok=True)
    for n, b in data.items(): (folder/layout/n).write_bytes(b)
    return folder/layout

@pytest.mark.parametrize('zipped', [False, True], ids=['folder', 'zip'])
@pytest.mark.parametrize('layout', GOOD)
def test_good_archives_load(layout, zipped, cache, tmp_path):
    d = load_movielens(layout, archive(tmp_path, layout, zipped), ratio=2/3)
    assert (len(d.train), len(d.test), d.n_users, d.n_items) == (2, 1, 2, 2) and d.items.title[0] == 'Heat (1995)'

HEAD = 'userId,movieId,rating,timestamp\n'
FAULTS = [
    ('ml-1m', dict(movies_dat=None), 'there is no movies.dat in it', 'fetch it again'),
    ('ml-1m', dict(ratings_dat=None), 'there is no ratings.dat in it', 'fetch it again'),
    ('ml-100k', dict(u_genre=None), 'there is no u.genre in it', 'fetch it again'),
    ('ml-1m', dict(ratings_dat=''), 'ratings.dat: no rows', 'fetch it again'),
    ('ml-1m', dict(movies_dat=''), 'movies.dat: no rows', 'fetch it again'),
    ('ml-20m', dict(ratings_csv=''), 'ratings.csv: no rows', 'fetch it again'),
    ('ml-20m', dict(ratings_csv=HEAD), 'ratings.csv: no rows', 'fetch it again'),
    ('ml-20m', dict(ratings_csv=HEAD.strip()), 'ratings.csv: no rows', 'fetch it again'),
    ('ml-20m', dict(movies_csv='movieId,title,genres\n'), 'movies.csv: no rows', 'fetch it again'),
    ('ml-20m', dict(ratings_csv='user,movie,stars,when\n1,1,5,100\n'), "ratings.csv, line 1: the header is 'user,movie,stars,when'", 'right file'),
    ('ml-20m', dict(movies_csv='1,Heat (1995),Action\n'), 'movies.csv, line 1: the header is', 'right file'),
    ('ml-1m', dict(ratings_dat='1::1::5::100\n1::2::3\n'), 'ratings.dat, line 2: 3 columns instead of 4', 'a line must hold'),
    ('ml-1m', dict(ratings_dat='1::1::5::100\n\n1::2::3::200\n'), 'ratings.dat, line 2: 1 columns instead of 4', 'a line must hold'),
    ('ml-1m', dict(ratings_dat='1,1,5,100\n'), 'ratings.dat, line 1: 1 columns instead of 4', 'a line must hold'),
    ('ml-20m', dict(ratings_csv=HEAD+'1,1,5.0,100\n1,2,3.5,200,9\n'), 'ratings.csv, line 3: 5 columns instead of 4', 'a line must hold'),
    ('ml-100k', dict(u_item='1|Heat (1995)|||0|1\n'), 'u.item, line 1: 6 columns instead of 7', 'correct or remove'),
    ('ml-1m', dict(movies_dat='1::Heat (1995)::Action\n2::Amelie\n'), 'movies.dat, line 2: 2 columns instead of 3', 'correct or remove'),
    ('ml-20m', dict(tags_csv='userId,movieId,tag,timestamp\n1,1,good,150\n1,1,150\n'), 'tags.csv, line 3: 3 columns instead of 4', 'a line must hold'),
    ('ml-1m', dict(ratings_dat='1::1::five::100\n'), "ratings.dat, line 1: rating 'five' is not a number", 'correct or remove'),
    ('ml-20m', dict(ratings_csv=HEAD+'1,1,,100\n'), "ratings.csv, line 2: rating '' is not a number", 'correct or remove'),
    ('ml-20m', dict(ratings_csv=HEAD+'1,1,nan,100\n'), 'ratings.csv, line 2: rating nan is outside 0.5-5', 'correct or remove'),
    ('ml-1m', dict(ratings_dat='x1::1::5::100\n'), "ratings.dat, line 1: user id 'x1' is not a whole number", 'correct or remove'),
    ('ml-20m', dict(ratings_csv=HEAD+'1,1,5,2001-01-01\n'), "line 2: timestamp '2001-01-01' is not a whole number", 'correct or remove'),
    ('ml-20m', dict(movies_csv='movieId,title,genres\ntwo,Heat (1995),Action\n'), "movies.csv, line 2: movie id 'two' is not a whole number", 'correct or remove'),
    ('ml-1m', dict(ratings_dat='1::1::5::100\n1::2::6::200\n'), 'ratings.dat, line 2: rating 6 is outside 1-5', 'correct or remove'),
    ('ml-1m', dict(ratings_dat='1::1::0::100\n'), 'ratings.dat, line 1: rating 0 is outside 1-5', 'correct or remove'),
    ('ml-20m', dict(ratings_csv=HEAD+'1,1,3.7,100\n'), 'ratings.csv, line 2: rating 3.7 is not a multiple of 0.5', 'correct or remove'),
    ('ml-1m', dict(ratings_dat='1::1::5::-1\n'), 'ratings.dat, line 1: timestamp -1 is negative', 'seconds since 1970'),
    ('ml-1m', dict(ratings_dat='1::1::5::99999999999\n'), 'ratings.dat, line 1: timestamp 99999999999 lies in the future', 'milliseconds'),
    ('ml-100k', dict(u_data='1\t1\t5\t100\n1\t2\t3\t200\n1\t1\t4\t300\n'), 'u.data, line 3: this user has rated this item before (line or row 1)', 'keep one'),
    ('ml-20m', dict(ratings_csv=HEAD+'1,1,5,100\n1,99,3,200\n'), 'ratings.csv, line 3: unknown movie id 99', 'add it there or remove'),
    ('ml-20m', dict(tags_csv='userId,movieId,tag,timestamp\n1,99,good,150\n'), 'tags.csv, line 2: unknown movie id 99', 'add it there or remove'),
    ('ml-1m', dict(movies_dat='1::Heat::Action\n2::Up::Drama\n1::Heat::Action\n'), 'movies.dat, line 3: movie id 1 is listed twice', 'keep one'),
    ('ml-20m', dict(movies_csv='movieId,title,genres\n1,Heat,Action\n2,Amélie,Comedy\n'.encode('latin-1')), 'movies.csv, line 3: byte 0xe9 is not UTF-8', 'save it as UTF-8'),
    ('ml-1m', dict(movies_dat='1::Heat::Action\n2::Amélie::Comedy\n'.encode('utf-8')), 'movies.dat, line 2: this layout is latin-1', 'save it as latin-1'),
]

@pytest.mark.parametrize('zipped', [False, True], ids=['folder', 'zip'])
@pytest.mark.parametrize('layout,change,says,cure', FAULTS, ids=[f"{f[0]}-{f[2][:40]}" for f in FAULTS])
def test_faults(layout, change, says, cure, zipped, cache, tmp_path):
    path = archive(tmp_path, layout, zipped, **change)
    with pytest.raises(DataError) as e: load_movielens(layout, path)
    text = str(e.value)
    assert says in text and cure in text and text.startswith(str(path)) and '\n' not in text
    assert cache() == []      # a failure leaves nothing behind

def test_broken_zips(twin, cache, tmp_path):
    path = write_movielens(twin, tmp_path, 'ml-20m', zipped=True)
    whole = path.read_bytes()
    for data, says in [(whole[:len(whole)//2], 'not a complete zip'), (b'', 'not a complete zip'), (whole[:2000]+bytes(50)+whole[2050:], 'damaged inside the zip')]:
        path.write_bytes(data)
        with pytest.raises(DataError, match=says): load_movielens('ml-20m', path)
    assert cache() == []

def test_an_error_in_row_one_million_names_its_line(cache, tmp_path):
    rows = [HEAD] + [f'{u},{i},3.0,100\n' for u in range(1, 1001) for i in range(1, 1001)]
    movies = 'movieId,title,genres\n' + ''.join(f'{i},Film {i} (1990),Drama\n' for i in range(1, 1001))
    rows[765_432] = rows[765_432].replace('3.0', '3.x')
    with pytest.raises(DataError, match="line 765433: rating '3.x' is not a number"): load_movielens('ml-20m', archive(tmp_path, 'ml-20m', ratings_csv=''.join(rows), movies_csv=movies))

# --- the cache

def test_second_load_reads_the_cache(twin, cache, tmp_path, monkeypatch):
    path = write_movielens(twin, tmp_path, 'ml-20m', zipped=True)
    first = load_movielens('ml-20m', path)
    files = cache()
    assert len(files) == 4 and not any(f.endswith('.tmp') for f in files)
    monkeypatch.setattr('rlrec.data.movielens.read_ratings', lambda *a: pytest.fail('parsed again'))
    second = load_movielens('ml-20m', path)
    for part in ('train', 'test', 'items', 'users'): pd.testing.assert_frame_equal(getattr(first, part), getattr(second, part))
    assert first.fingerprint == second.fingerprint
    load_movielens('ml-20m', path, split='user', ratio=.5)     # another split needs no new parse
    assert cache() == files

def test_a_changed_source_is_read_again(cache, tmp_path):
    path = archive(tmp_path, 'ml-1m')
    a = load_movielens('ml-1m', path, ratio=1)
    b = load_movielens('ml-1m', archive(tmp_path, 'ml-1m', ratings_dat='1::1::5::100\n1::2::3::200\n2::1::2::300\n'), ratio=1)
    assert a.train.value.tolist() == [5, 3, 4] and b.train.value.tolist() == [5, 3, 2] and a.fingerprint != b.fingerprint
    path = archive(tmp_path, 'ml-1m', zipped=False)
    load_movielens('ml-1m', path)
    (path/'movies.dat').write_text('1::Renamed (1995)::Drama\n2::Up (2009)::Drama\n')
    assert load_movielens('ml-1m', path).items.title[0] == 'Renamed (1995)'

def test_an_interrupted_write_leaves_nothing_half(twin, cache, tmp_path, monkeypatch):
    import pyarrow.parquet as pq
    path, real, calls = write_movielens(twin, tmp_path, 'ml-1m'), pq.write_table, []
    def dies(table, where, **kw):
        calls.append(1)
        if len(calls) < 4: return real(table, where, **kw)
        where.write_bytes(b'PAR1 half a table')
        raise KeyboardInterrupt
    monkeypatch.setattr(pq, 'write_table', dies)
    with pytest.raises(KeyboardInterrupt): load_movielens('ml-1m', path)
    assert not any('ratings' in f or f.endswith('.tmp') for f in cache())
    monkeypatch.setattr(pq, 'write_table', real)
    pd.testing.assert_frame_equal(load_movielens('ml-1m', path).train, twin.train)

# --- splits

@pytest.mark.parametrize('seed', range(5))
def test_no_split_looks_ahead(seed):
    rng = np.random.default_rng(seed)
    r = pd.DataFrame(dict(user=rng.integers(0, 20, 500), item=np.arange(500), value=3., time=rng.integers(0, 60, 500)))   # many equal times
    train, test = split_time(r, .8)
    assert len(train) == 400 and train.time.max() <= test.time.min()
    assert sorted([*train.item, *test.item]) == list(range(500))
    both = pd.concat([train, test])
    assert (both.groupby('time').item.apply(lambda i: i.is_monotonic_increasing)).all()      # equal times keep the order of the source
    train, test = split_user(r, .25)
    n, late = r.groupby('user').size(), test.groupby('user').size()
    assert (late == n//4).all()
    assert (train.groupby('user').time.max()[late.index] <= test.groupby('user').time.min()).all()

def test_splits_do_not_depend_on_the_order_of_distinct_times():
    r = pd.DataFrame(dict(user=np.arange(100) % 7, item=np.arange(100), value=1., time=np.arange(100)*3))
    for split in (split_time, split_user):
        for a, b in zip(split(r), split(r.sample(frac=1, random_state=3))): pd.testing.assert_frame_equal(a, b)

# --- a user's own data

def test_own_tables_agree(twin, cache, tmp_path):
    t = as_tables(twin)
    r = pd.DataFrame(dict(who=twin.users.user_id.to_numpy()[t['ratings'].user], film=twin.items.item_id.to_numpy()[t['ratings']['item']], stars=t['ratings'].value, at=t['ratings'].time))
    items = twin.items[['item_id', 'title', 'year']].assign(genres=twin.items.categories.map('|'.join))
    names = dict(user='who', item='film', value='stars', time='at', item_id='item_id', categories='genres')
    r.to_csv(tmp_path/'r.csv', index=False); r.to_csv(tmp_path/'r.tsv', index=False, sep='\t'); r.to_parquet(tmp_path/'r.parquet')
    items.to_csv(tmp_path/'i.csv', index=False); items.to_parquet(tmp_path/'i.parquet')
    for ratings_, items_ in [(r, items), ('r.csv', 'i.csv'), ('r.tsv', 'i.csv'), ('r.parquet', 'i.parquet')]:
        d = from_table(*((tmp_path/x if isinstance(x, str) else x) for x in (ratings_, items_)), columns=names)
        pd.testing.assert_frame_equal(d.train, twin.train); pd.testing.assert_frame_equal(d.test, twin.test)
        for c in ('item_id', 'title', 'categories', 'year'): assert d.items[c].tolist() == twin.items[c].tolist(), c

def test_own_folder(cache, tmp_path, monkeypatch):
    monkeypatch.setenv('RLREC_DATA', str(tmp_path))
    (tmp_path/'shop').mkdir()
    (tmp_path/'shop'/'r.csv').write_text('who,what,stars,at\nann,tea,5,10\nbob,tea,1,20\nann,jam,3,30\n')
    (tmp_path/'shop'/'dataset.yaml').write_text('ratings: r.csv\ncolumns: {user: who, item: what, value: stars, time: at}\n')
    assert 'shop' in catalogue.names()
    d = catalogue.load('shop', ratio=2/3)
    assert (d.name, d.n_users, d.test.item.tolist()) == ('shop', 2, [0])
    (tmp_path/'shop'/'r.csv').write_text('who,what,stars,at\nann,tea,5,10\nbob,tea,11,20\n')
    with pytest.raises(DataError, match='r.csv, line 3: rating 11 is outside 1-5'): catalogue.load('shop')

def test_unknown_names():
    with pytest.raises(ConfigError, match="did you mean 'synthetic-movielens'"): catalogue.load('synthetic-movielense')
    with pytest.raises(ConfigError, match="unknown download 'coatt'"): catalogue.get('coatt')

# --- the twin

def test_twin_is_the_same_in_another_process(twin):
    code = ("import hashlib;from rlrec.data.synthetic import load_synthetic as f;d=f(n_users=150,n_items=200,ratings_per_user=30,seed=1);"
            "print(hashlib.sha256(b''.join([d.train.to_numpy().tobytes(),d.test.to_numpy().tobytes(),d.truth.tobytes(),'|'.join(d.items.title).encode()])).hexdigest())")
    import hashlib
    here = hashlib.sha256(b''.join([twin.train.to_numpy().tobytes(), twin.test.to_numpy().tobytes(), twin.truth.tobytes(), '|'.join(twin.items.title).encode()])).hexdigest()
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, env=os.environ | {'PYTHONHASHSEED': '7'}).stdout.strip() == here

@pytest.mark.parametrize('seed', range(3))
def test_twin_keeps_its_promises(seed):
    d = load_synthetic(seed=seed)
    r, c = as_tables(d)['ratings'], d.card()
    assert (c.users, c['items'], c.ratings, len(d.train)) == (1000, 800, 80_000, 64_000)
    assert c.per_user_min >= 20 and .55 <= c.positive <= .59 and c.both_sides > 300 and c.gini > .4
    assert not r.duplicated(['user', 'item']).any() and d.items.title.is_unique
    assert d.truth.shape == (1000, 800) and d.truth.dtype == np.float32 and (1 <= d.truth).all() and (d.truth <= 5).all()
    assert d.items.categories.map(len).between(1, 4).all() and len(set().union(*d.items.categories)) == 19

def test_twin_at_exact_size_without_truth(monkeypatch):
    monkeypatch.setattr('rlrec.data.synthetic.TRUTH_CELLS', 1000)
    d = load_synthetic(300, 500, n_ratings=12_345)
    assert len(d.train)+len(d.test) == 12_345 and d.truth is None

# --- the real files, where RLREC_DATA has them

def real(name):
    if not find_movielens(name): pytest.skip(f'RLREC_DATA has no {name}')
    return catalogue.load(name)

@pytest.mark.real_data
def test_real_ml_1m():
    d = real('ml-1m')
    c = d.card()
    assert (c.ratings, c.users, c['items'], c.rated_items, c.scale, c['first'], c['last']) == (1_000_209, 6_040, 3_883, 3_706, '1-5', '2000-04-25', '2003-02-28')
    assert d.train.time.max() <= d.test.time.min() and len(d.test) == 200_042
    assert set(d.users.gender) == {'F', 'M'} and d.items.title[0] == 'Toy Story (1995)' and d.items.categories[0] == ('Animation', "Children's", 'Comedy')
    assert d.items.year.between(1919, 2000).all()
    assert 'Misérables' in ' '.join(d.items.title)        # latin-1, read as such

@pytest.mark.real_data
def test_real_ml_latest_small():
    d = real('ml-latest-small')
    c = d.card()
    assert (c.ratings, c.users, c['items'], c.rated_items, c.scale) == (100_836, 610, 9_742, 9_724, '0.5-5')
    assert (d.items.categories.map(len) == 0).sum() == 34 and sorted(set(ratings(d).value.unique())) == [k/2 for k in range(1, 11)]
    early = load_movielens('ml-latest-small', ratio=.5).items.tags
    assert 0 < (early != '').sum() < (d.items.tags != '').sum()

@pytest.mark.real_data
def test_real_check_tells_the_repack():
    real('ml-1m')
    c = catalogue.check('ml-1m')
    assert c.md5.startswith(('official', 'differs from the official zip')) and c.ratings == 1_000_209
