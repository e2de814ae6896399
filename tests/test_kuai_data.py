"KuaiRec and KuaiRand: official layouts, packed or not; labels, repeats and times; the completed table; twins; faults in one line"
import gzip, shutil, zipfile
from pathlib import Path

import numpy as np, pandas as pd, pytest
from conftest import one_line
from rlrec.core import ConfigError, DataError, cache_dir
from rlrec.data import kuairand, kuairec
from rlrec.data.base import Where, gini
from rlrec.data.feed import tag_names, tag_slots
from rlrec.data.kuairand import (LOGS, UNTAGGED, factorise, find_kuairand, judge_completion, load_kuairand, read_features, read_log, read_videos, synthetic_kuairand,
                                 write_kuairand)
from rlrec.data.kuairec import (find_kuairec, gaussian, load_kuairec, read_file, read_watching, synthetic_kuairec, user_item, write_kuairec)
from rlrec.data.movielens import Archive

def same(a, b): return a.fingerprint == b.fingerprint and np.array_equal(a.truth, b.truth) and a.train.equals(b.train) and a.test.equals(b.test)

def pack(folder):
    for p in folder.rglob('*.csv'): Path(f'{p}.gz').write_bytes(gzip.compress(p.read_bytes())); p.unlink()

def spoil(path, old, new, n=1):
    text = path.read_text(); assert old in text
    path.write_text(text.replace(old, new, n))

# ------------------------------------------------------------------------------------------------ KuaiRec

def test_kuairec_against_pandas(home):
    "Everything the loader makes, made again the slow way"
    folder = write_kuairec(home/'kuairec', .02)
    d = load_kuairec()
    big, small = (pd.read_csv(folder/f'{n}_matrix.csv') for n in ('big', 'small'))
    users = [*sorted(small.user_id.unique()), *sorted(set(big.user_id)-set(small.user_id))]
    cats = pd.read_csv(folder/'item_categories.csv')
    items = [*sorted(small.video_id.unique()), *sorted(set(cats.video_id)-set(small.video_id))]
    assert d.users.user_id.tolist() == users and d.items.item_id.tolist() == items
    assert d.truth.shape == (small.user_id.nunique(), small.video_id.nunique()) and d.truth.dtype == np.float32
    both = pd.concat([big, small])
    stats = both.groupby('video_id').watch_ratio.agg(['mean', 'std'])
    label = ((big.watch_ratio - big.video_id.map(stats['mean'])) / big.video_id.map(stats['std'])).clip(upper=10).fillna(0)
    want = pd.DataFrame(dict(time=np.floor(big.timestamp).astype('int64'), user=big.user_id.map({u: k for k, u in enumerate(users)}), item=big.video_id.map({i: k for k, i in enumerate(items)}), value=label,
                             raw=big.watch_ratio.clip(upper=5))).sort_values('time', kind='stable')
    for c in ('time', 'user', 'item'): assert (d.train[c].to_numpy() == want[c].to_numpy()).all()
    for c in ('value', 'raw'): np.testing.assert_allclose(d.train[c], want[c], atol=1e-4)
    cells = small.watch_ratio.clip(upper=5).groupby([small.user_id, small.video_id]).mean().unstack().fillna(0)
    np.testing.assert_allclose(d.truth, cells.to_numpy(), atol=1e-5)
    length = both.groupby('video_id').video_duration.mean().reindex(items)
    np.testing.assert_allclose(d.items.duration, ((length-length.mean())/length.std()).fillna(0), atol=1e-4)
    assert [list(map(int, c)) for c in d.items.categories] == [eval(f) for f in cats.set_index('video_id').feat[items]]
    assert (d.test.time == 0).sum() == small.timestamp.isna().sum() > 0 and d.train.time.is_monotonic_increasing and len(d.train) == len(big)
    assert same(d, load_kuairec())                                                       # parsed, then from the cache

@pytest.mark.parametrize('form', ['packed', 'zip', 'flat'])
def test_kuairec_in_every_form(home, form):
    folder = write_kuairec(home/'kuairec', .02)
    plain = load_kuairec()
    if form == 'packed': pack(home)
    elif form == 'flat':
        for p in folder.iterdir(): p.rename(home/'kuairec'/p.name)
    else:
        with zipfile.ZipFile(home/'KuaiRec.zip', 'w') as z:
            for p in folder.iterdir(): z.write(p, f'KuaiRec 2.0/data/{p.name}')
        shutil.rmtree(home/'kuairec'); (home/'kuairec').mkdir(); (home/'KuaiRec.zip').rename(home/'kuairec'/'KuaiRec.zip')
    assert find_kuairec() is not None
    d = load_kuairec()
    assert np.array_equal(d.truth, plain.truth) and d.train.equals(plain.train)

def test_repeats_are_averaged_or_summed(home):
    folder = write_kuairec(home/'kuairec', .02)
    line = (folder/'small_matrix.csv').read_text().splitlines()
    cells = line[1].split(',')
    cells[-1] = '9'                                                                       # cut at 5 before it counts
    (folder/'small_matrix.csv').write_text('\n'.join([*line, ','.join(cells)])+'\n')
    mean, total = load_kuairec(), load_kuairec(duplicates='sum')
    first = min(float(line[1].split(',')[-1]), 5)
    changed = np.argwhere(mean.truth != total.truth)
    assert len(changed) == 1
    u, i = changed[0]
    assert mean.truth[u, i] == pytest.approx((first+5)/2) and total.truth[u, i] == pytest.approx(first+5)
    assert len(mean.test) == len(total.test) == len(line)                                 # the log keeps its rows
    assert mean.fingerprint != total.fingerprint
    log = mean.train
    n = log.groupby(['user', 'item']).raw.agg(['mean', 'sum', 'size'])
    k = np.array(n.index.tolist()).T
    np.testing.assert_allclose(np.asarray(mean.matrix(column='raw')[k[0], k[1]])[0], n['mean'], atol=1e-4)
    np.testing.assert_allclose(np.asarray(total.matrix(column='raw')[k[0], k[1]])[0], n['sum'], rtol=1e-4)
    assert n['size'].max() > 1 and mean.matrix(threshold=-9).max() == total.matrix(threshold=-9).max() == 1
    with pytest.raises(ConfigError, match='unknown part'): mean.matrix('truth')

def test_raw_labels(home):
    write_kuairec(home/'kuairec', .02)
    d = load_kuairec(normalise='raw')
    assert (d.train.value == d.train.raw).all() and d.scale == (0, 5) and d.positive == 1
    with pytest.raises(ConfigError, match="did you mean 'gaussian'"): load_kuairec(normalise='gausian')
    with pytest.raises(ConfigError, match="did you mean 'mean'"): load_kuairec(duplicates='mena')

def test_gaussian_is_pandas():
    rng = np.random.default_rng(0)
    x, item = rng.exponential(size=5000)**3, rng.integers(300, size=5000)
    g = pd.Series(x).groupby(item)
    np.testing.assert_allclose(gaussian(x, item, 300), ((x-g.transform('mean'))/g.transform('std')).clip(upper=10).fillna(0), atol=1e-5)

@pytest.mark.parametrize('file,old,new,says', [
    ('big_matrix.csv', 'watch_ratio', 'ratio', 'line 1: there is no column watch_ratio'), ('small_matrix.csv', 'video_id', 'video', 'line 1: there is no column video_id'),
    ('big_matrix.csv', '\n0,', '\nx,', "line 2: user_id 'x' is not a whole number"), ('big_matrix.csv', '\n0,', '\n0,0,', 'line 2: 9 columns instead of 8'),
    ('big_matrix.csv', '\n0,', '\n,', 'line 2: user_id .* is not a whole number|line 2: user_id is empty'), ('item_categories.csv', '\n0,', '\n1,', 'line 3: video 1 is listed twice'),
    ('item_categories.csv', '"[', '"(', "line 2: feat .* is not a list of tags"), ('item_categories.csv', '\n0,', '\n9999,', 'there is no video 0')])
def test_kuairec_faults(home, file, old, new, says):
    spoil(write_kuairec(home/'kuairec', .02)/file, old, new)
    with pytest.raises(DataError, match=f'{file}.*(?:{says})') as e: load_kuairec()
    one_line(e)

@pytest.mark.parametrize('change,says', [(lambda p: p.write_text(''), 'no rows'), (lambda p: p.write_text(p.read_text().partition('\n')[0]+'\n'), 'no rows'), (Path.unlink, 'is no small_matrix.csv'),
                                         (lambda p: Path(f'{p}.gz').write_bytes(gzip.compress(p.read_bytes())[:-9]) and p.unlink(), 'not a complete gzip')])
def test_kuairec_broken_files(home, change, says):
    change(write_kuairec(home/'kuairec', .02)/'small_matrix.csv')
    with pytest.raises(DataError, match=says) as e: load_kuairec(home/'kuairec')
    one_line(e)

def test_absent_sets_name_their_twins(home):
    with pytest.raises(DataError, match='synthetic-kuairec') as e: load_kuairec()
    one_line(e)
    with pytest.raises(DataError, match='synthetic-kuairand') as e: load_kuairand()
    one_line(e)
    with pytest.raises(DataError, match='synthetic-kuairec'): load_kuairec(home/'nowhere')

def test_a_small_matrix_of_three_columns(home):
    folder = write_kuairec(home/'kuairec', .02)
    full = load_kuairec()
    t = pd.read_csv(folder/'small_matrix.csv')
    t[['watch_ratio', 'user_id', 'video_id']].to_csv(folder/'small_matrix.csv', index=False)
    bare = load_kuairec()
    assert np.array_equal(bare.truth, full.truth) and (bare.test.time == 0).all()
    np.testing.assert_array_equal(bare.train.value, full.train.value)
    assert not np.array_equal(bare.items.duration, full.items.duration)                    # lengths from the log alone

def test_the_real_sample(real_data):
    folder = real_data('kuairec')/'partial'
    if not (folder/'small_matrix_sample_117113.csv.gz').exists(): pytest.skip('the sample is not here')
    t = read_watching(*read_file(Archive(folder), 'small_matrix_sample_117113.csv'), bare=True)
    assert (t.user_id.nunique(), t.video_id.nunique(), len(t)) == (1411, 2519, 117113)
    assert t.watch_ratio.median() == pytest.approx(.779, abs=.001) and t.watch_ratio.max() > 100
    m = user_item(*(pd.factorize(t[c], sort=True)[0] for c in ('user_id', 'video_id')), t.watch_ratio.clip(upper=5), (1411, 2519))
    assert m.nnz == 117113 and m.max() == 5
    with pytest.raises(DataError, match='there is no column video_duration'): read_watching(*read_file(Archive(folder), 'small_matrix_sample_117113.csv'))

# ------------------------------------------------------------------------------------------------ its twin

def test_the_twin_has_the_card_of_the_real_one():
    d = synthetic_kuairec()
    assert d.name == 'synthetic-kuairec' and d.truth.shape == (141, 333) and (d.n_users, d.n_items) == (718, 1073)
    pairs, test = (t.user.to_numpy().astype(int)*d.n_items + t['item'].to_numpy() for t in (d.train, d.test))
    assert len(d.train)/(718*1073) == pytest.approx(.163, rel=.08) and 1-len(np.unique(pairs))/len(pairs) == pytest.approx(.08, abs=.01)
    assert len(np.unique(test)) == len(test) == pytest.approx(141*333*.996, rel=.002) and not np.isin(test, pairs).any()
    assert np.bincount(np.unique(pairs, return_inverse=True)[1]).max() > 30               # a pair that comes back and back
    assert np.median(d.test.raw) == pytest.approx(.78, abs=.06) and d.truth.mean() == pytest.approx(.89, abs=.06) and d.truth.std() == pytest.approx(.68, abs=.06) and d.truth.max() == 5
    assert tag_names(d) and len(tag_names(d)) == 31 and tag_slots(d).shape[1] == 4 and d.items.categories.map(len).min() == 1
    assert gini(np.bincount(d.train['item'], minlength=d.n_items)) > .35
    assert pd.to_datetime(d.train.time.iloc[[0, -1]], unit='s').dt.strftime('%Y-%m').tolist() == ['2020-07', '2020-09']
    assert d.train.value.max() <= 10 and d.dense == ('duration',) and d.features == () and d.exit_rule == 'tags' and not d.binary and d.timed

def test_the_log_teaches_taste():
    "Neighbours in the log tell something about the table that popularity does not"
    d = synthetic_kuairec()
    x = d.matrix()
    seen = x[:, d.feed_items:]                                                            # videos outside the table: the only ones its users have in the log
    v = np.linalg.svd(seen.toarray()/np.sqrt(1+np.diff(seen.tocsc().indptr)), full_matrices=False)[0][:, :8]
    others = np.arange(d.feed_users, d.n_users)
    y = x[others][:, :d.feed_items].toarray()
    w = np.linalg.solve(v[others].T@v[others] + .01*np.eye(8), v[others].T@y)
    z = (d.truth-d.truth.mean(0))/d.truth.std(0)
    assert np.corrcoef((v[:d.feed_users]@w).ravel(), z.ravel())[0, 1] > .15

@pytest.mark.parametrize('make', [synthetic_kuairec, synthetic_kuairand], ids=['kuairec', 'kuairand'])
def test_twins_are_the_same_every_time(home, make):
    a, cached = make(.02), make(.02)
    shutil.rmtree(cache_dir())
    b = make(.02)
    assert same(a, cached) and same(a, b) and not same(a, make(.02, seed=1))
    for size in (0, .001, 1.5, float('nan')):
        with pytest.raises(ConfigError, match='size must lie between'): make(size)
    with pytest.raises(ConfigError, match='seed'): make(.02, seed=-1)

# ------------------------------------------------------------------------------------------------ KuaiRand

def test_kuairand_against_pandas(home):
    write_kuairand(home/'kuairand-pure', .02)
    folder = home/'kuairand-pure'/'KuaiRand-Pure'/'data'
    d = load_kuairand()
    train, test = (pd.read_csv(folder/n).sort_values('time_ms', key=lambda t: t//1000, kind='stable') for n in LOGS)
    for log, got in ((train, d.train), (test, d.test)):
        assert (got.user.to_numpy() == log.user_id.to_numpy()).all() and (got['item'].to_numpy() == log.video_id.to_numpy()).all()
        assert (got.value.to_numpy() == log.is_click.to_numpy()).all() and (got.time.to_numpy() == log.time_ms.to_numpy()//1000).all()
    assert train.duplicated().sum() > 0 and set(train.columns) == set(test.columns) and len(train.columns) == 19 and (test.is_rand == 1).all() and (train.is_rand == 0).all()
    tags = pd.read_csv(folder/'video_features_basic_pure.csv', dtype=dict(tag=str)).tag
    assert [','.join(c) for c in d.items.categories] == tags.fillna(UNTAGGED).tolist() and tags.isna().any()
    length = pd.concat([train, test]).groupby('video_id').duration_ms.mean().reindex(range(d.n_items))
    np.testing.assert_allclose(d.items.duration, ((length-length.mean())/length.std()).fillna(0), atol=1e-4)
    assert d.binary and d.positive == 1 and d.scale == (0, 1) and d.exit_rule == 'tags' and d.users.shape[1] == 31
    assert d.card().completion.startswith('ours: 8 factors')

def test_kuairand_packed(home):
    write_kuairand(home/'kuairand-pure', .02)
    plain = load_kuairand()
    pack(home)
    assert find_kuairand() == home/'kuairand-pure' and np.array_equal(load_kuairand().truth, plain.truth)
    (next(home.rglob('user_features*'))).unlink()
    assert find_kuairand() is None
    with pytest.raises(DataError, match='there is no user_features_pure.csv'): load_kuairand(home/'kuairand-pure')

def test_truth_is_the_factorisation_of_the_random_log(home, monkeypatch):
    write_kuairand(home/'kuairand-pure', .02)
    d = load_kuairand(factors=3, ridge=4.)
    fit = factorise(d.test.user, d.test['item'], d.test.value, d.truth.shape, 3, 4.)
    assert np.array_equal(d.truth, fit.rows(np.arange(d.n_users))) and d.truth.dtype == np.float32 and d.truth.shape == (d.n_users, d.n_items)
    assert d.truth.min() >= 0 and d.truth.max() <= 1
    other = load_kuairand(factors=2, ridge=4.)
    assert other.fingerprint != d.fingerprint and not np.array_equal(other.truth, d.truth)
    monkeypatch.setattr(kuairand, 'factorise', None)                                      # from here on only the cache can answer
    assert np.array_equal(load_kuairand(factors=3, ridge=4.).truth, d.truth)

def test_factorisation_solves_its_equations():
    "At the end no user can do better alone: the gradient of each user's ridge problem is zero after the videos' last half sweep is undone"
    rng = np.random.default_rng(0)
    u, i, y = rng.integers(30, size=900), rng.integers(20, size=900), rng.random(900)
    f = factorise(u, i, y, (30, 20), 2, 3.)
    v = np.column_stack([f.users, np.ones(30)])                                           # the videos were fitted last
    for k in range(20):
        r = i == k
        x = np.r_[f.items[k], f.item_bias[k]]
        np.testing.assert_allclose(v[u[r]].T@(y[r]-f.mean-f.user_bias[u[r]]-v[u[r]]@x), 3*x, atol=1e-8)

def test_completion_beats_the_item_mean():
    d = synthetic_kuairand()
    judged = judge_completion(d.test, d.truth.shape)
    assert judged.auc.is_monotonic_increasing and judged.mse.is_monotonic_decreasing and judged.auc.iloc[-1] > judged.auc.iloc[0]+.05
    pd.testing.assert_frame_equal(judged, judge_completion(d.test, d.truth.shape))

def test_the_twin_of_kuairand():
    d = synthetic_kuairand()
    assert (d.n_users, d.n_items) == (2728, 758) == d.truth.shape and len(tag_names(d)) == 47 and tag_slots(d).shape[1] == 3
    assert d.test.value.mean() == pytest.approx(.2, abs=.02) and d.train.value.mean() > 1.5*d.test.value.mean() and d.truth.mean() == pytest.approx(.2, abs=.02)
    assert len(d.train) == pytest.approx(114_000, rel=.08) and len(d.test) == pytest.approx(118_600, rel=.08)
    n = np.bincount(d.train['item'], minlength=d.n_items)
    assert .6 < gini(n) < .85 and gini(np.bincount(d.test['item'], minlength=d.n_items)) < .1   # lots do not know popularity
    top, fixed = np.sort(d.truth, 1)[:, -30:].mean(), np.sort(d.truth.mean(0))[-30:].mean()
    assert top > 1.1*fixed > 1.1*2*d.truth.mean()

@pytest.mark.parametrize('file,old,new,says', [
    (LOGS[0], 'is_click', 'click', 'line 1: there is no column is_click'), (LOGS[1], '\n0,', '\n99999,', 'line 2: unknown user id 99999'), (LOGS[0], ',2022', ',x,2022', 'line 2: 20 columns instead of 19'),
    ('video_features_basic_pure.csv', '\n0,', '\n1,', 'line 3: video_id 1 is listed twice'), ('user_features_pure.csv', '\n0,', '\nu0,', "line 2: user_id 'u0' is not a whole number")])
def test_kuairand_faults(home, file, old, new, says):
    write_kuairand(home/'kuairand-pure', .02)
    spoil(next(home.rglob(file)), old, new)
    with pytest.raises(DataError, match=f'{file}.*{says}') as e: load_kuairand()
    one_line(e)

def test_real_parts_of_kuairand(real_data):
    home = real_data('kuairand-pure')
    arc = Archive(home)
    if 'video_features_basic_pure.csv.gz' not in arc: pytest.skip('the features are not here')
    users, videos = read_features(*read_file(arc, 'user_features_pure.csv'), 'user_id'), read_videos(*read_file(arc, 'video_features_basic_pure.csv'))
    assert users.shape == (27285, 31) and len(videos) == 7583 and users.user_id.tolist() == list(range(27285))
    tags = videos.categories
    assert len({t for c in tags for t in c}) == 47 and tags.map(len).max() == 3 and (tags == (UNTAGGED,)).sum() == 96
    name = 'log_standard_4_25_to_5_08_pure.csv'
    if f'{name}.gz' not in arc: pytest.skip('the log is not here')
    raw, where = read_file(arc, name)
    log = read_log(raw, where)
    assert len(log) == 228329 and (log.user_id.nunique(), log.video_id.nunique()) == (25156, 6361)
    lines = pd.Series(raw.splitlines()[1:])
    assert lines.duplicated().sum() == 5460                                               # kept as they are
