"""Degeneracy, measured: distances between policies by hand, the jackknife against known cases, and rewards that pay what they say"""
import numpy as np, pytest
from rlrec.core import ConfigError
from rlrec.agents.policies import Uniform
from rlrec.analyses.degenerate import FINER,Acts,FinerEnv,best_ties,cold_states,differ,js,over_pairs,pairs_of,square,tie_share,train_finer
from rlrec.envs.cold_start import ColdStartEnv,cold_start_world

def hot(a, n): return np.eye(n)[np.asarray(a)]

def test_ties_by_brute_force():
    rng = np.random.default_rng(0); r,mask = rng.integers(0, 3, (300,4)).astype(float),rng.random((300,4))<.7
    mask[:,0] = True
    by_hand = [sorted(x[m], reverse=True)[:2].count(max(x[m]))==2 for x,m in zip(r, mask)]
    assert best_ties(r, mask).tolist()==by_hand and best_ties([[1.,1.+1e-9]]).tolist()==[True]

def test_differ_by_hand():
    "Three states, three actions; they differ in two of them, in one of these both choices earn 2"
    r = np.array([[2,2,0],[1,0,0],[0,0,5.]])
    x,y = Acts('a', 0, 0., np.array([0,0,2]), hot([0,0,2], 3)),Acts('a', 1, 0., np.array([1,1,2]), hot([1,1,2], 3))
    assert differ(x, y, r)==pytest.approx(dict(disagreement=2/3, js=2/3, unpaid=.5, chance=8/9, kappa=.25))   # shares (2/3, 0, 1/3) and (0, 2/3, 1/3): alike by chance in one ninth
    assert differ(x, y, r, weight=np.array([3,0,1.]))==pytest.approx(dict(disagreement=.75, js=.75, unpaid=1., chance=15/16, kappa=.2))
    alone = differ(x, x, r); assert alone['disagreement']==alone['js']==0 and np.isnan(alone['unpaid']) and alone['kappa']==1

def test_blind_policies_agree_by_chance():
    "A policy that is Discovery in a tenth of the states, drawn blindly: little disagreement, kappa about 0; one that copies it mostly: kappa well above"
    rng = np.random.default_rng(0); a,b = (rng.random((2,20000))<.1).astype(int); r = np.zeros((20000,2))
    c = np.where(rng.random(20000)<.8, a, b); of = lambda x: Acts('x', 0, 0., x, hot(x, 2))
    blind,near = differ(of(a), of(b), r),differ(of(a), of(c), r)
    assert blind['disagreement']==pytest.approx(.18, abs=.01) and blind['chance']==pytest.approx(.18, abs=.01) and abs(blind['kappa'])<.03
    assert near['kappa']==pytest.approx(.8, abs=.03)
    still = differ(of(0*a), of(0*a), r); assert still['chance']==pytest.approx(0, abs=1e-9) and np.isnan(still['kappa'])

def test_js_is_a_metric_between_0_and_1():
    rng = np.random.default_rng(0); p,q,m = rng.dirichlet(np.ones(5), (3,200))
    assert (js(p, q)==pytest.approx(js(q, p))) and (js(p, q)<=js(p, m)+js(m, q)+1e-12).all() and js(p, p)==pytest.approx(0, abs=1e-7)
    assert js(hot([0], 2), hot([1], 2))==pytest.approx(1)

def test_jackknife_is_exact_for_a_mean():
    "If a pair's number is the mean of two traits, the mean over pairs is the mean of the traits, and so is its standard error"
    t = np.array([1.,4.,2.,8.,5.]); m = (t[:,None]+t)/2
    c = over_pairs(m)
    assert c.difference==pytest.approx(t.mean()) and c.se==pytest.approx(t.std(ddof=1)/np.sqrt(5)) and c.df==4
    assert over_pairs(m, m-.5).difference==pytest.approx(.5) and over_pairs(m, m-.5).se==pytest.approx(0, abs=1e-12)
    with pytest.raises(ConfigError, match='three trainings'): over_pairs(m[:2,:2])

def test_square_and_pairs_fit():
    acts = [Acts('a', s, float(s), np.array([s%2]), hot([s%2], 2)) for s in range(4)]
    p = pairs_of(acts, np.array([[1.,0]]), random=0., best=10.); m = square(p, 'disagreement')
    assert len(p)==6 and p.gap.max()==pytest.approx(.3) and np.isnan(np.diag(m)).all() and (np.nan_to_num(m)==np.nan_to_num(m.T)).all() and m[0,1]==1 and m[0,2]==0
    with pytest.raises(ConfigError, match='more than the random'): pairs_of(acts, np.array([[1.,0]]), 1., 1.)

@pytest.fixture(scope='module')
def world(): return cold_start_world(encoder='tfidf-svd')

def test_hit_is_the_environment_of_the_study(world):
    ours,theirs = FinerEnv(world, 40),ColdStartEnv(world, 40)
    for e in (ours, theirs): e.reset(seed=3)
    for t in range(12):
        a = np.arange(40)%2; (o,r,*_),(p,s,*_) = ours.step(a),theirs.step(a)
        assert (o==p).all() and (r==s).all()

def test_finer_rewards_add_what_they_say(world):
    paid = {}
    for kind,settings in FINER.items():
        env = FinerEnv(world, 200, **settings); env.reset(seed=0); _,paid[kind],*_,info = env.step(np.arange(200)%2)
    hits = info['hits']
    assert (paid['hit']==hits.any(1)).all() and (paid['hits']==hits.sum(1)).all()
    assert paid['price']==pytest.approx(hits.any(1)-.1*(np.arange(200)%2))
    assert paid['ranked']==pytest.approx(np.where(hits.any(1), 1+.1/(hits.argmax(1)+1), 0))
    assert ((paid['shaped-movie']-paid['hit'])<=1+1e-5).all() and (paid['shaped-movie']>=paid['shaped']-1e-6).all()

def test_a_price_leaves_no_tie(world):
    left = {k: tie_share(world, Uniform(2), k, 100, 0) for k in FINER}
    assert left['price']==0 and max(left, key=left.get)=='hit' and left['hits']<left['hit']

def test_states_and_values_of_agents(world):
    agents = {('hit',s): train_finer(world, 'hit', s, 20, warmup=50, lr=1e-3) for s in range(3)}
    acts,earned,low,high = cold_states(world, agents, 40, seed=0, most=300)
    assert earned.shape==(300,2) and low<high and all(len(a.greedy)==300 for a in acts)
    again,_,_,_ = cold_states(world, {('hit',0): train_finer(world, 'hit', 0, 20, warmup=50, lr=1e-3), **{k: v for k,v in agents.items() if k[1]}}, 40, seed=0, most=300)
    assert (acts[0].greedy==again[0].greedy).all() and acts[0].value==again[0].value
    with pytest.raises(ConfigError, match='unknown reward'): train_finer(world, 'hitz')

def test_feed_states_are_those_that_were_visited():
    "Two lists for everybody: values are the judge's, no masked item is chosen, and a policy agrees with itself"
    from rlrec.analyses.degenerate import feed_states
    from rlrec.analyses.feed import Judge,anchors
    from rlrec.data.catalogue import load
    from rlrec.envs.feed import FeedEnv
    data = load('synthetic-coat', size=.3); users = np.arange(data.feed_users); a = anchors(data)
    env = FeedEnv(data, len(users), mode='NX_0')
    acts,pays,mask = feed_states(env, {('popularity',0): a['popularity'], ('popularity',1): a['popularity'], ('oracle',0): a['oracle']}, users, most=500)
    judge = Judge(data)
    assert [x.value for x in acts]==pytest.approx([judge.play(a[k], 'NX_0').total.mean() for k in ('popularity','popularity','oracle')], rel=1e-5)
    for x in acts: assert mask[np.arange(500),x.greedy].all() and np.isfinite(pays[np.arange(500),x.greedy]).all()
    assert (acts[0].greedy==acts[1].greedy).all() and (pays[np.arange(500),acts[2].greedy]==pays.max(1)).all()
    d = differ(acts[0], acts[2], pays); assert 0<d['disagreement']<=1
