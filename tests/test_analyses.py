"""The measuring half of the analyses: metrics and tests against independent implementations, rows against faults."""
import numpy as np, pandas as pd, pyarrow as pa, pyarrow.parquet as pq, pytest
import matplotlib; matplotlib.use('Agg')
import matplotlib.pyplot as plt
import pytrec_eval
from scipy import stats
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import ndcg_score
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_ind,ttost_paired
from rlrec.core import ConfigError,DataError
from rlrec.analyses import figures,metrics,statistics
from rlrec.analyses.rows import Rows,check_rows,published,read_rows,write_rows
from rlrec.rows import COLUMNS,SCHEMA,parse_variant,variant


# ---- lists: trec_eval (through pytrec_eval) and scikit-learn as second opinions

@pytest.fixture(scope='module', params=[(60,.1), (30,.4), (200,.01)], ids=['usual','rich','sparse'])
def lists(request):
    "Random rankings of whole catalogues, some users wanting fewer items than there are places"
    n_items,share = request.param
    rng = np.random.default_rng(n_items)
    wanted = rng.random((300,n_items))<share
    wanted[:20] = np.eye(n_items, dtype=bool)[:20]  # twenty users who want one thing only
    wanted = wanted[wanted.any(1)]
    ranking = rng.random(wanted.shape).argsort(1)
    return wanted,ranking

def trec(wanted, ranking, k):
    "precision, recall, NDCG and hit rate at k by trec_eval"
    n = wanted.shape[1]
    truth = {str(u):{str(i):1 for i in np.flatnonzero(w)} for u,w in enumerate(wanted)}
    run = {str(u):{str(i):float(n-place) for place,i in enumerate(r)} for u,r in enumerate(ranking)}
    names = ['P','recall','ndcg_cut','success']
    out = pytrec_eval.RelevanceEvaluator(truth, {f'{m}.{k}' for m in names}).evaluate(run)
    return [np.array([out[str(u)][f'{m}_{k}'] for u in range(len(wanted))]) for m in names]

@pytest.mark.parametrize('k', [1,5,10,20])
def test_lists_agree_with_trec_eval(lists, k):
    wanted,ranking = lists
    hits,relevant = np.take_along_axis(wanted, ranking[:,:k], 1),wanted.sum(1)
    ours = metrics.precision(hits),metrics.recall(hits, relevant),metrics.ndcg(hits, relevant),metrics.hit(hits)
    for a,b in zip(ours, trec(wanted, ranking, k)): np.testing.assert_allclose(a, b, atol=1e-12)

@pytest.mark.parametrize('k', [2,5,10,20])
def test_ndcg_agrees_with_sklearn(lists, k):
    wanted,ranking = lists
    score = np.empty(ranking.shape); np.put_along_axis(score, ranking, np.arange(ranking.shape[1], 0, -1.)[None], 1)
    hits = np.take_along_axis(wanted, ranking[:,:k], 1)
    ours = metrics.ndcg(hits, wanted.sum(1))
    np.testing.assert_allclose(ours, [ndcg_score(w[None], s[None], k=k) for w,s in zip(wanted, score)], atol=1e-12)

@pytest.mark.parametrize('k', [2,5,10])
def test_retrieved_ideal_agrees_with_both(lists, k):
    "The list's own hits as ideal is the usual NDCG of a user who wants nothing that was not shown"
    wanted,ranking = lists
    hits = np.take_along_axis(wanted, ranking[:,:k], 1); found = hits.any(1)
    ours = metrics.ndcg(hits, ideal='retrieved')
    assert (ours[~found]==0).all()
    places = np.tile(np.arange(k), (found.sum(),1))
    np.testing.assert_allclose(ours[found], trec(hits[found], places, k)[2], atol=1e-12)
    np.testing.assert_allclose(ours[found], [ndcg_score(h[None], -p[None], k=k) for h,p in zip(hits[found], places)], atol=1e-12)

def test_shapes_pass_through():
    "(episodes, steps, k) is the same as step by step, and length cuts what came after the end"
    rng = np.random.default_rng(0)
    hits = rng.random((7,5,10))<.3
    relevant = hits.sum(2)+rng.integers(0, 4, (7,5))
    with np.errstate(all='raise'): m = metrics.list_metrics(hits, relevant, length=np.arange(1, 8).clip(max=5))
    for e in range(7):
        T = min(e+1, 5)
        steps = [metrics.ndcg(hits[e,t], relevant[e,t]) for t in range(T)]
        np.testing.assert_allclose(m['ndcg@10'][e], np.nanmean(steps))
        np.testing.assert_allclose(m['precision@10'][e], hits[e,:T].mean())

def test_more_hits_than_wanted_items_is_an_error():
    with pytest.raises(ConfigError, match='2 hits, but its user wants only 1'): metrics.ndcg(np.array([[1,1]]), np.array([1]))

@pytest.mark.parametrize('p', [.05,.223,.8])
def test_ndcg_bound_holds_for_lists_with_hits_first(p):
    "With ten or more wanted items the best lists put their hits first, and no order does better"
    rng = np.random.default_rng(0)
    hits = rng.random((500,10))<p
    best = np.sort(hits, axis=1)[:,::-1]
    want = np.full(500, 40)
    assert (metrics.ndcg(best, want)>=metrics.ndcg(hits, want)-1e-12).all()
    D = np.r_[0, np.cumsum(metrics.discount(10))]
    assert metrics.ndcg(best, want).mean() <= np.interp(hits.sum(1).mean(), range(11), D)/D[10]+1e-12
    np.testing.assert_allclose(metrics.ndcg(best, ideal='retrieved'), hits.any(1), atol=1e-12)


# ---- items and actions: plain loops as second opinions

def test_item_metrics_agree_with_loops():
    rng = np.random.default_rng(0)
    vec = rng.normal(size=(50,8)).astype(np.float32); vec[7] = 0
    slates = np.stack([rng.choice(50, 6, replace=False) for _ in range(40)]); slates[3,4:] = -1; slates[4,1:] = -1
    counts = rng.poisson(3, 50)
    def pairs(s):
        s = s[s>=0]; unit = [v/np.linalg.norm(v) if v.any() else v for v in vec[s]]
        d = [1-unit[i]@unit[j] for i in range(len(s)) for j in range(i)]
        return np.mean(d) if d else np.nan
    np.testing.assert_allclose(metrics.diversity(slates, vec), [pairs(s) for s in slates], rtol=1e-4)
    np.testing.assert_allclose(metrics.novelty(slates, counts, 100), [np.mean([-np.log2(max(counts[i], 1)/100) for i in s if i>=0]) for s in slates])
    assert metrics.coverage(slates, 50)==len(set(slates[slates>=0].tolist()))/50
    e = metrics.exposure(slates, 50)
    np.testing.assert_allclose(metrics.gini(e), np.abs(e[:,None]-e).mean()/2/e.mean())

def test_action_distributions_agree_with_scipy():
    p,q = np.random.default_rng(0).dirichlet([.3]*6, size=(2,100))
    np.testing.assert_allclose(metrics.entropy(p), stats.entropy(p, axis=1), atol=1e-12)
    np.testing.assert_allclose(metrics.js_distance(p, q), jensenshannon(p, q, base=2, axis=1), atol=1e-7)
    assert (metrics.js_distance(p, p)==0).all()


# ---- statistics: SciPy and statsmodels as second opinions

@pytest.fixture(params=range(5))
def two(request):
    rng = np.random.default_rng(request.param)
    return rng.normal(5.6, .2, 6),rng.normal(5.5, .4, 6)

def test_t_tests_agree_with_scipy(two):
    a,b = two
    for ours,ref in [(statistics.welch(a, b), stats.ttest_ind(a, b, equal_var=False)), (statistics.paired(a, b), stats.ttest_rel(a, b)),
                     (statistics.from_summary((a.mean(), stats.sem(a), 6), (b.mean(), stats.sem(b), 6), pooled=True), stats.ttest_ind(a, b))]:
        np.testing.assert_allclose([ours.t, ours.p, ours.df, ours.low, ours.high], [ref.statistic, ref.pvalue, ref.df, *ref.confidence_interval()])

@pytest.mark.parametrize('margin', [.05,.2,.5])
def test_equivalence_agrees_with_statsmodels(two, margin):
    a,b = two
    np.testing.assert_allclose(statistics.equivalence(a, b, margin).p, ttost_paired(a, b, -margin, margin)[0])
    e = statistics.equivalence(a, b, margin, paired=False)
    np.testing.assert_allclose(e.p, ttost_ind(a, b, -margin, margin, usevar='unequal')[0])
    assert e.equivalent == (-margin<e.low and e.high<margin) == (margin>statistics.smallest_margin(statistics.welch(a, b)))

def test_the_published_test_is_reproduced():
    t1 = published('cold_start', 'reward').set_index('policy')
    h,d = ((*t1.loc[p, ['mean','se']], 5) for p in ('heuristic','dqn'))
    t = statistics.from_summary(h, d, pooled=True)
    assert (round(t.t, 3), round(t.p, 3), t.df) == (.721, .491, 8)
    assert round((t.high-t.low)/2, 2) == .31

def test_mean_se_is_over_seeds_and_not_over_rows():
    rng = np.random.default_rng(0)
    f = pd.DataFrame(dict(policy='dqn', variant='', metric='reward', step=pd.array([pd.NA]*30, dtype='Int64'), seed=np.repeat(range(5), 6), value=rng.normal(size=30), n=1))
    m = statistics.mean_se(f).iloc[0]
    x = f.groupby('seed').value.mean()
    assert m.seeds==5
    np.testing.assert_allclose([m['mean'], m.se], [x.mean(), stats.sem(x)])
    np.testing.assert_allclose([m.low, m.high], stats.t.interval(.95, 4, x.mean(), stats.sem(x)))

def test_holm_agrees_with_statsmodels_and_keeps_the_order():
    p = np.random.default_rng(0).random(12)**3
    np.testing.assert_allclose(statistics.holm(p), multipletests(p, method='holm')[1])
    assert (np.diff(statistics.holm(np.sort(p)))>=0).all()


# ---- rows: what goes in comes out, and faults are named

def some_rows(seed=0):
    r = Rows('cold_start', 'synthetic-movielens', seed)
    r.add('dqn', 'reward', 5.5+seed/10, n=1000)
    r.add('heuristic', 'reward', 5.6, n=1000, variant=variant(slate=20))
    r.add('dqn', 'action_gap/both', float('nan'), n=0)
    r.curve('dqn', 'reward', np.arange(10, 1010, 10), np.arange(100.), n=10)
    return r

def test_rows_round_trip_and_bytes(tmp_path):
    path = write_rows(some_rows(), tmp_path/'a')
    assert pq.read_schema(path)==SCHEMA and write_rows(some_rows(), tmp_path/'b').read_bytes()==path.read_bytes()
    pd.testing.assert_frame_equal(read_rows(tmp_path/'a'), some_rows().frame())
    assert [p.name for p in (tmp_path/'a').iterdir()]==['rows.parquet']

def test_filters(tmp_path):
    for seed in range(4): write_rows(some_rows(seed), tmp_path/f'seed-{seed}')
    assert len(read_rows(tmp_path))==4*103
    assert read_rows(tmp_path, metric='reward', step=None, policy='dqn').value.tolist()==[5.5,5.6,5.7,5.8]
    assert set(read_rows(tmp_path, seed=[1,3]).seed)=={1,3}
    assert read_rows(tmp_path, policy='nobody').columns.tolist()==COLUMNS
    with pytest.raises(ConfigError, match="unknown column 'metrics'"): read_rows(tmp_path, metrics='reward')
    assert set(read_rows(tmp_path, seed='3').seed)=={3}       # as a command line has it
    with pytest.raises(ConfigError, match="seed cannot be 'one'"): read_rows(tmp_path, seed='one')

def test_faults_in_files_are_named(tmp_path):
    with pytest.raises(DataError, match='no rows.parquet'): read_rows(tmp_path)
    write_rows(some_rows(), tmp_path/'a'); write_rows(some_rows(), tmp_path/'b')
    with pytest.raises(DataError, match=r'a.rows\.parquet and .*b.rows\.parquet: two values'): read_rows(tmp_path)
    whole = (tmp_path/'b'/'rows.parquet').read_bytes()
    (tmp_path/'b'/'rows.parquet').write_bytes(whole[:len(whole)//2])
    with pytest.raises(DataError, match='b.rows.parquet: cannot be read'): read_rows(tmp_path)
    (tmp_path/'b'/'rows.parquet').write_bytes(b'')
    with pytest.raises(DataError, match='cannot be read'): read_rows(tmp_path)
    pq.write_table(pa.table(dict(policy=['dqn'], value=[1.])), tmp_path/'b'/'rows.parquet')
    with pytest.raises(DataError, match='has no column report; delete it and run its job again'): read_rows(tmp_path)

def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = write_rows(some_rows(), tmp_path); old = path.read_bytes()
    with pytest.raises(DataError, match='missing column n'): write_rows(some_rows().frame().drop(columns='n'), tmp_path)
    assert path.read_bytes()==old and len(list(tmp_path.iterdir()))==1

@pytest.mark.parametrize('change,message', [(dict(value=np.nan), 'no value'), (dict(seed=None), 'seed has empty cells'), (dict(n='many'), 'wrong type'), (dict(step=1.5), 'wrong type')])
def test_check_rows(change, message):
    f = some_rows().frame().astype(object).iloc[:2].assign(**change)
    with pytest.raises(DataError, match=message): check_rows(f)

@pytest.mark.parametrize('settings', [{}, dict(slate=20), dict(lr=1e-4, gamma=.98), dict(a=True, b=False, c='NX_0'), dict(x=-1.5, y=1e300)])
def test_variants_round_trip(settings): assert parse_variant(variant(**settings))==settings

def test_variant_spelling_is_one():
    r = Rows('r', 'd', 0)
    r.add('dqn', 'reward', 1., variant='gamma=0.98;lr=0.0001')
    with pytest.raises(ConfigError, match='already has a value'): r.add('dqn', 'reward', 1., variant='lr=1e-4;gamma=0.980')


# ---- figures: every helper draws from rows and gives its ax back

@pytest.fixture(scope='module')
def rows():
    out = []
    for seed in range(3):
        r,rng = Rows('cold_start', 'synthetic-movielens', seed),np.random.default_rng(seed)
        for p,d in dict(dqn=.3, heuristic=.01).items():
            r.add(p, 'reward', 5+rng.random(), n=100); r.add(p, 'action_share/precision', 1-d); r.add(p, 'action_share/discovery', d)
        r.curve('dqn', 'reward', np.arange(1, 101)*10, rng.random(100))
        out.append(r.frame())
    return pd.concat(out)

@pytest.fixture
def ax():
    fig,ax = plt.subplots(); yield ax
    plt.close(fig)

@pytest.mark.parametrize('draw', [
    lambda rows,ax: figures.curve(rows, 'reward', ax, window=10), lambda rows,ax: figures.dots(rows, 'reward', ax, published('cold_start', 'reward')),
    lambda rows,ax: figures.shares(rows, ax), lambda rows,ax: figures.spread(rows, 'reward', ax),
    lambda rows,ax: figures.cells(pd.Series(dict(both=0., precision=1., discovery=0., neither=0.)), ax), lambda rows,ax: figures.heat(pd.DataFrame(np.eye(2)), ax)],
    ids=['curve','dots','shares','spread','cells','heat'])
@pytest.mark.parametrize('seeds', [1,3])
def test_helpers_draw(rows, ax, draw, seeds, tmp_path):
    assert draw(rows[rows.seed<seeds], ax) is ax
    first = figures.save(ax.figure, tmp_path, 'x').read_bytes()
    assert first[:4]==b'\x89PNG' and figures.save(ax.figure, tmp_path, 'x').read_bytes()==first

def test_figures_refuse_mixtures(rows, ax):
    with pytest.raises(DataError, match='several of variant'): figures.dots(pd.concat([rows, rows.assign(variant='slate=20')]), 'reward', ax)
    with pytest.raises(DataError, match="no final value of 'precision@10'"): figures.dots(rows, 'precision@10', ax)

def test_colours_do_not_depend_on_who_else_is_there():
    assert figures.look('dqn')==figures.look('dqn') and figures.order(['dqn','heuristic'])==figures.order(['heuristic','dqn'])==['heuristic','dqn']
