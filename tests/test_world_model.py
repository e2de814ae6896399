"""Promises of the world model, the entropy bonus and reward shaping, each beside a slow and plain version of itself."""
from itertools import permutations, product
import numpy as np, pandas as pd, pytest, torch
from rlrec.core import ConfigError, stream
from rlrec.data.base import frame
from rlrec.data.catalogue import load
from rlrec.data.coat import load_coat
from rlrec.data.feed import FeedDataset, tag_slots
from rlrec.tools import entropy as entropy_module, shaping, world_model
from rlrec.tools.base import topk
from rlrec.tools.entropy import Entropy, follow
from rlrec.tools.shaping import FORMS, combined, logged_rows, published_shaping, roler
from rlrec.tools.world_model import LOSSES, WorldModel, cell_values, look_up, published_model, ranking, sample_negatives

SMALL = dict(embedding=4, hidden=(16,8), epochs=2, members=2, batch=256)

def random_feed(seed=0, users=30, items=20, block=(12,9), rows=600, tags=True, timed=True, **kw):
    "A small feed with a log that repeats itself, tags (some items have none), and more users and items than the table"
    rng = stream(seed, 'test')
    log = frame(rng.integers(users, size=rows), rng.integers(items, size=rows), rng.integers(1, 6, rows), rng.integers(100, size=rows))
    names = [tuple(rng.choice(list('abcde'), rng.integers(0, 4), replace=False)) if tags else () for _ in range(items)]
    table = pd.DataFrame(dict(item_id=range(items), categories=names, duration=rng.standard_normal(items)))
    test = frame(rng.integers(block[0], size=200), rng.integers(block[1], size=200), rng.integers(1, 6, 200), [0]*200)
    return FeedDataset('random', log, test, table, pd.DataFrame(dict(user_id=range(users))), (1.,5.), 'x', truth=rng.random(block).astype(np.float32), timed=timed, dense=('duration',), **kw)

@pytest.fixture(scope='module')
def coat(): return load('synthetic-coat')

@pytest.fixture(scope='module')
def feed(): return random_feed()

@pytest.fixture(scope='module')
def fitted(feed): return WorldModel(**SMALL).fit(feed, 1)

# The world model

def weights(model): return [p.detach().numpy().tobytes() for net in model.nets for p in net.parameters()]

def test_same_seed_same_bytes(feed, fitted):
    before = torch.get_rng_state(),np.random.get_state()[1].copy()
    again,other = (WorldModel(**SMALL).fit(feed, s) for s in (1, 2))
    assert weights(again)==weights(fitted)!=weights(other)
    assert torch.equal(before[0], torch.get_rng_state()) and (before[1]==np.random.get_state()[1]).all()      # nobody else's random numbers are used
    for a,b in zip(again.matrices(), fitted.matrices()): assert a.tobytes()==b.tobytes()

def test_test_part_and_truth_are_not_read(feed, fitted):
    other = feed.replace(test=feed.test.iloc[:0], truth=np.zeros_like(feed.truth))
    assert weights(WorldModel(**SMALL).fit(other, 1))==weights(fitted)

def test_members_differ_from_the_start(feed):
    first,second = WorldModel(**SMALL | dict(epochs=0)).fit(feed).nets
    assert not torch.equal(first.table, second.table) and not torch.equal(first.deep[0].weight, second.deep[0].weight)

@pytest.mark.parametrize('settings', [{}, dict(variance=False), dict(task='binary'), dict(hidden=(8,)), dict(embedding=1, hidden=(4,4,4))])
def test_matrices_are_the_plain_predictions(feed, settings, monkeypatch):
    model = WorldModel(**SMALL | settings).fit(feed)
    mean,var = model.matrices()
    assert mean.shape==var.shape==feed.truth.shape and mean.dtype==var.dtype==np.float32
    u,i = np.divmod(np.arange(mean.size), mean.shape[1])
    m,v = model.predict(u, i)
    np.testing.assert_allclose(mean.ravel(), m, atol=1e-5); np.testing.assert_allclose(var.ravel(), v, atol=1e-5)
    np.testing.assert_allclose(model.scores([3,29])[0,:mean.shape[1]], mean[3], atol=1e-6)
    monkeypatch.setattr(world_model, 'CELLS', 7)
    np.testing.assert_allclose(model.matrices()[0], mean, atol=1e-6)
    if settings.get('task')=='binary': assert 0<mean.min() and mean.max()<1

def test_mean_of_means_and_largest_variance(feed, fitted):
    u,i = torch.tensor([0,5,11]),torch.tensor([8,0,3])
    with torch.no_grad(): (a,s),(b,t) = (net(u, i) for net in fitted.nets)
    mean,var = fitted.predict(u, i)
    np.testing.assert_allclose(mean, (a+b)/2, rtol=1e-5); np.testing.assert_allclose(var, torch.maximum(s, t).exp(), rtol=1e-5)
    assert 0<var.min() and var.max()<=np.exp(.5)

@torch.no_grad()
def test_network_against_the_formula(feed, fitted):
    net,u,i = fitted.nets[0],7,4
    rows = [1+u, *net.index[i].tolist()]
    v,l,x = net.table[rows][:,:-1].detach(),net.table[rows][:,-1].detach(),net.dense[i]
    h = torch.cat([v.flatten(), x])
    for layer in net.deep: h = layer(h)
    pairs = sum(float(v[a] @ v[b]) for a in range(len(v)) for b in range(a))
    want = float(net.bias)+float(l.sum())+float(x @ net.dense_weight)+pairs+float(net.head.weight[0] @ h)
    assert float(net(torch.tensor([u]), torch.tensor([i]))[0])==pytest.approx(want, abs=1e-5)

def test_padding_stays_zero(fitted):
    assert all(not net.table[0].any() for net in fitted.nets) and all(net.table[1:].all() for net in fitted.nets)

@pytest.mark.parametrize('loss', LOSSES)
@pytest.mark.parametrize('variance', [True, False])
def test_every_loss_learns(coat, loss, variance):
    model = WorldModel(loss=loss, variance=variance, members=1, epochs=3, hidden=(32,), batch=512).fit(coat)
    assert model.losses[-1][0]<model.losses[0][0] and np.isfinite(model.matrices()[0]).all()
    assert model.judge(coat)['ndcg@10']>WorldModel(members=1, epochs=0).fit(coat).judge(coat)['ndcg@10']+.02

def test_weight_decay_is_the_gradient_of_the_penalty(feed):
    "One step with the penalty written out is one step of the optimiser"
    a,b = WorldModel(**SMALL).prepare(feed),WorldModel(**SMALL, l2_table=0.).prepare(feed)
    b.opts[0] = torch.optim.Adam(b.nets[0].parameters(), lr=b.lr)
    users,items,y,w = a.pick(torch.arange(64))
    a.update(0, (users,items,y,w))
    net = b.nets[0]
    mean,s = net(users, items)
    loss = LOSSES['pointneg'](mean[:64], mean[64:], y, w, s[:64], s[64:])+.1*sum(p.square().sum() for p in net.parameters())+1e-5*(net.table.square().sum()+net.dense_weight.square().sum())
    loss.backward(); b.opts[0].step()
    for p,q in zip(a.nets[0].parameters(), net.parameters()): torch.testing.assert_close(p, q, atol=1e-6, rtol=1e-4)

def test_inverse_weights(feed):
    log = WorldModel(weights='inverse', **SMALL).prepare(feed).log
    per_item = np.bincount(feed.train.item, log['w'].numpy())
    np.testing.assert_allclose(per_item[per_item>0], 1, rtol=1e-5)                # each item counts once in all
    assert weights(WorldModel(weights='inverse', **SMALL).fit(feed))!=weights(WorldModel(**SMALL).fit(feed))

def test_callback_after_each_epoch(feed):
    seen = []
    model = WorldModel(**SMALL | dict(members=1, variance=False, epochs=3)).fit(feed, 4, on_epoch=lambda e,m: seen.append((e, m.matrices()[0])))
    assert [e for e,_ in seen]==[1,2,3] and (seen[-1][1]==model.matrices()[0]).all() and not (seen[0][1]==seen[1][1]).all()
    shorter = WorldModel(**SMALL | dict(members=1, variance=False, epochs=2)).fit(feed, 4)
    np.testing.assert_array_equal(shorter.matrices()[0], seen[1][1])              # looking on changes nothing

def test_negatives_are_below_the_logged_value(feed):
    user,item = sample_negatives(feed, 7, stream(0, 'test'))
    limit = np.repeat(feed.train.value.to_numpy(), 7)
    found = look_up(*cell_values(feed), user*feed.n_items+item)
    best = feed.train.groupby(['user','item']).value.max()
    for u,i,f in list(zip(user, item, found))[:200]: assert f==best.get((u,i), 0)
    assert (found>=limit).mean()<.15 and len(user)==7*len(feed.train)              # three draws are not always enough in so dense a log
    assert abs(np.bincount(user, minlength=30)/len(user)-1/30).max()<.02

@pytest.mark.parametrize('name,width', [('synthetic-coat', 40), ('synthetic-kuairec', 41), ('synthetic-kuairand', 17), ('synthetic-yahoo-r3', 8)])
def test_published_settings_and_item_vectors(name, width):
    data = load(name)
    model = WorldModel(**published_model(name) | dict(members=1, epochs=0)).fit(data)
    vectors = model.item_embeddings()
    assert vectors.shape==(data.feed_items, width) and vectors.dtype==np.float32
    if data.binary: assert .4<model.predict(np.arange(50), np.arange(50))[0].mean()<.6
    assert published_shaping(name)['form'] in FORMS

def test_ranking_against_a_loop():
    rng = stream(0, 'test')
    user,pred,rel = rng.integers(40, size=500),rng.random(500),rng.random(500)<.2
    got,want = ranking(user, pred, rel),{}
    for k in (5,10,20):
        rows = []
        for u in range(40):
            r = rel[user==u][np.argsort(-pred[user==u])].astype(float)
            if not r.any(): continue
            top,n = r[:k],int(r.sum())
            gain = 1/np.log2(np.arange(2, len(r)+2+k))
            hits = np.flatnonzero(top)
            ap = sum(top[:j+1].mean() for j in hits)/min(n, k)
            rows.append([(top*gain[:len(top)]).sum()/gain[:min(n, k)].sum(), top.sum()/n, top.sum()/k, float(top.any()), ap, 1/(hits[0]+1) if len(hits) else 0])
        want |= dict(zip([f'{m}@{k}' for m in ('ndcg','recall','precision','hit','map','mrr')], np.mean(rows, 0)))
    assert got==pytest.approx(want)

def test_judge_knows_a_perfect_model(feed):
    class Oracle(WorldModel):
        def predict(self, u, i): return truth[u,i],np.full(len(u), .01)
    test = feed.test.drop_duplicates(['user','item']); truth = np.zeros(feed.truth.shape); truth[test.user,test.item] = test.value
    j = Oracle().judge(feed.replace(test=test))
    assert (j['MAE'],j['MSE'],j['ndcg@5'],j['mrr@5'],j['inside@50'])==(0,0,1,1,1)

def test_learns_the_twin(coat):
    model = WorldModel(members=1).fit(coat)
    j,mean = model.judge(coat),model.matrices()[0]
    assert j['MAE']<1.4 and j['ndcg@10']>.55 and .7<j['inside@95']<=1
    best,everything = np.take_along_axis(coat.truth, topk(mean, 30), 1).mean(),coat.truth.mean()
    assert best>everything+.15

def test_errors(feed):
    with pytest.raises(ConfigError, match='is no feed dataset'): WorldModel().fit(load('synthetic-movielens'))
    for call in (lambda m: m.matrices(), lambda m: m.predict([0], [0]), lambda m: m.item_embeddings(), lambda m: m.scores([0])):
        with pytest.raises(ConfigError, match='not fitted'): call(WorldModel())

def test_real_coat_is_near_the_published_errors(real_data):
    real_data('coat')
    data,got = load_coat(),{}
    plain = dict(members=1, variance=False)
    got[0] = WorldModel(epochs=0, **plain).fit(data).judge(data)
    WorldModel(**plain).fit(data, on_epoch=lambda e,m: got.update({e: m.judge(data)}))
    for epoch,mae,mse in ((0,2.202,6.393), (1,1.102,1.933), (5,1.199,2.418)):
        assert abs(got[epoch]['MAE']-mae)<.15 and abs(got[epoch]['MSE']/mse-1)<.4, (epoch,got[epoch])
    assert got[5]['ndcg@10']==pytest.approx(.592, abs=.06) and got[5]['recall@10']==pytest.approx(.798, abs=.05)

# The entropy bonus

def slow_entropy(data, windows, level):
    "Contexts and outcomes in dictionaries, one row after the other"
    slots = tag_slots(data) if level=='feature' else np.arange(data.n_items)[:,None]
    of = [[t for t in row if t>=0] for row in slots.tolist()]
    maps = {k: {} for k in windows}
    for _,rows in data.train.sort_values(['user','time'], kind='stable').groupby('user'):
        s = rows.item.tolist()
        for k in windows:
            for t in range(k, len(s)):
                for c in product(*(of[i] for i in s[t-k:t])):
                    for o in of[s[t]]:
                        counts = maps[k].setdefault(tuple(sorted(c)), {}); counts[o] = counts.get(o, 0)+1
    def h(counts):
        p = np.array(list(counts.values()), float); p /= p.sum()
        return 1. if len(p)==1 else float(-(p*np.log(p)).sum()/np.log(len(p)))
    return of,{k: {c: h(o) for c,o in m.items()} for k,m in maps.items()}

@pytest.mark.parametrize('level', ['item', 'feature'])
@pytest.mark.parametrize('windows', [(1,), (1,2), (2,3)])
def test_entropy_against_dictionaries(feed, level, windows, monkeypatch):
    of,maps = slow_entropy(feed, windows, level)
    history = stream(2, 'test').integers(-1, feed.feed_items, (300, 3))
    def bonus(row):
        total = 0
        for k in windows:
            last = row[-k:]
            ways = [] if (last<0).any() else list(product(*(of[i] for i in last)))
            total += np.mean([maps[k].get(tuple(sorted(c)), 1.) for c in ways]) if ways else 1.
        return total
    e = Entropy(windows, level).fit(feed)
    got = e.lookup(history)
    np.testing.assert_allclose(got, [bonus(r) for r in history], atol=1e-5)
    assert got.dtype==np.float32
    assert e.low==pytest.approx(sum(min(m.values()) for m in maps.values())) and e.high==pytest.approx(sum(max(m.values()) for m in maps.values()))
    monkeypatch.setattr(entropy_module, 'SMALL', 3)                               # count by sorting
    np.testing.assert_array_equal(Entropy(windows, level).fit(feed).lookup(history), got)
    if level=='item':
        monkeypatch.setattr(entropy_module, 'DENSE', 3)                           # look up by bisection
        np.testing.assert_array_equal(Entropy(windows, level).fit(feed).lookup(history), got)

@pytest.mark.parametrize('level', ['item', 'feature'])
def test_order_of_the_last_items_does_not_matter(feed, level):
    context,_ = follow(*feed.train.sort_values(['user','time'], kind='stable')[['item','user']].to_numpy().T, 3)
    known = context[(context<feed.feed_items).all(1)][0]
    got = Entropy((3,), level).fit(feed).lookup(np.array(list(permutations(known))))
    np.testing.assert_allclose(got, got[0], atol=1e-6)

def test_entropy_needs_times_or_a_word(coat):
    with pytest.raises(ConfigError, match='file_order=True'): Entropy().fit(coat)
    e = Entropy((), 'item').fit(coat)
    assert not e.lookup(np.zeros((4,3), int)).any() and e.low==e.high==0
    assert Entropy(file_order=True).fit(coat).lookup(np.zeros((4,3), int)).shape==(4,)
    with pytest.raises(ConfigError, match='too short'): Entropy((3,), file_order=True).fit(coat).lookup(np.zeros((1,2), int))

def test_log_shorter_than_a_window():
    e = Entropy((1,5)).fit(random_feed(rows=3))
    assert e.low==e.high==2 and (e.lookup(np.full((2,5), -1))==2).all()

def test_feature_level_without_tags():
    with pytest.raises(ConfigError, match='has no tags'): Entropy(level='feature').fit(random_feed(tags=False))

# Shaping

@pytest.mark.parametrize('form', FORMS[:4])
@pytest.mark.parametrize('own', [True, False])
def test_roler_against_a_loop(feed, form, own, monkeypatch):
    P,k = stream(3, 'test').random(feed.truth.shape).astype(np.float32),4
    s = roler(feed, P, k, form, 'var', own)
    monkeypatch.setattr(shaping, 'BLOCK', 5)
    np.testing.assert_allclose(roler(feed, P, k, form, 'var', own).reward, s.reward, atol=1e-6)
    for u,row in enumerate(P):
        cos = P @ row/np.linalg.norm(P, axis=1)/np.linalg.norm(row)
        near = [v for v in np.argsort(-cos, kind='stable') if own or v!=u][:k]
        c = cos[near]
        w = {'weighted-norm': c/c.sum(), 'weighted': c, 'weighted-div': c/k, 'mean': np.full(k, 1/k)}[form]
        np.testing.assert_array_equal(s.neighbours[u], near)
        np.testing.assert_allclose(s.reward[u], w @ P[near], rtol=1e-5)
        np.testing.assert_allclose(s.uncertainty[u], P[near].var(0, ddof=1), atol=1e-6)
    assert s.reward.dtype==np.float32 and s.neighbours.dtype==np.int32

@pytest.mark.parametrize('form', FORMS[:4])
def test_one_neighbour_oneself(feed, form):
    P = stream(3, 'test').standard_normal(feed.truth.shape).astype(np.float32)
    P[4] = 2*P[3]                                                                   # a double: cosine 1, but another person
    s = roler(feed, P, 1, form)
    np.testing.assert_array_equal(s.reward, P)
    assert not s.uncertainty.any() and (s.neighbours[:,0]==np.arange(len(P))).all()

def test_logged_against_a_loop(feed):
    U,I,k = feed.feed_users,feed.feed_items,5
    R = logged_rows(feed).toarray()
    s = roler(feed, None, k, 'logged')
    for u in range(U):
        a,B = R[u,I:],R[U:,I:]
        cos = B @ a/np.maximum(np.linalg.norm(B, axis=1)*np.linalg.norm(a), 1e-12)
        near = np.argsort(-cos, kind='stable')[:k]
        np.testing.assert_allclose(cos[s.neighbours[u]-U], cos[near], rtol=1e-5)
        values = R[s.neighbours[u],:I]
        np.testing.assert_allclose(s.reward[u], values.mean(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(s.uncertainty[u], values.var(0, ddof=1), rtol=1e-4, atol=1e-4)
    assert s.neighbours.min()>=U

def test_logged_reads_nothing_of_the_test_users_own_feedback_in_the_table(feed):
    U,I = feed.feed_users,feed.feed_items
    inside = (feed.train.user<U) & (feed.train.item<I)
    without = feed.replace(train=feed.train[~inside], truth=np.zeros_like(feed.truth), test=feed.test.iloc[:0])
    np.testing.assert_array_equal(roler(feed, None, 5, 'logged').reward, roler(without, None, 5, 'logged').reward)

def test_one_number_per_user(feed):
    P = stream(3, 'test').random(feed.truth.shape).astype(np.float32)
    low,mid,high = (roler(feed, P, 4, uncertainty=f'cos-{x}').uncertainty for x in ('min','avg','max'))
    assert (low[:,:1]==low).all() and (low<=mid).all() and (mid<=high).all() and low.max()<1e-6 and high.min()>0

def test_ways_to_combine(feed):
    s = roler(feed, stream(3, 'test').random(feed.truth.shape).astype(np.float32), 4, 'mean', 'var')
    assert (combined(s, 0.)==s.reward).all() and (combined(s, .1)<=s.reward).all()
    draws = np.stack([combined(s, 1., 'sample', seed) for seed in range(400)])
    np.testing.assert_allclose(draws.mean(0), s.reward, atol=.12); np.testing.assert_allclose(draws.var(0), s.uncertainty, atol=.06)

def test_errors_of_shaping(feed):
    P = np.ones(feed.truth.shape, np.float32)
    with pytest.raises(ConfigError, match='k must be between 1 and 12, not 13'): roler(feed, P, 13)
    with pytest.raises(ConfigError, match='k must be between 1 and 18'): roler(feed, None, 19, 'logged')
    with pytest.raises(ConfigError, match='two neighbours or more'): roler(feed, P, 1, 'mean', 'var')
    with pytest.raises(ConfigError, match='add up to 0'): roler(feed, 0*P, 2, include_self=False)
