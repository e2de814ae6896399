"Inverse reinforcement learning: against brute force, finite differences and a general optimiser"
from itertools import product
import numpy as np, pytest
from scipy.optimize import approx_fprime,minimize
from rlrec.agents.policies import Constant,Heuristic
from rlrec.analyses.irl import MDP,PUBLISHED,SETS,Tree,ascend,errors,features,floor,follow,likelihood,maximise,movement,number,play_all,reading,repeats,slope,soft_values,span,split,stepwise,totals,trace,two_groups,visits
from rlrec.core import ConfigError
from rlrec.envs.cold_start import ColdStartEnv,cold_start_world

def random_mdp(seed, S=5, A=3, d=3, horizon=4, sharp=.4):
    rng = np.random.default_rng(seed)
    return MDP(rng.dirichlet(np.ones(S)), rng.dirichlet(np.full(S, sharp), size=(S,A)), rng.normal(size=(S,A,d)), horizon),rng

@pytest.fixture(scope='module')
def world(): return cold_start_world('synthetic-movielens', 0, 'mixed', encoder='tfidf-svd')

@pytest.fixture(scope='module')
def groups(world): return two_groups(world, 10, 0)

@pytest.fixture(scope='module')
def own(world, groups): return {still: play_all(world, groups[0], 4, **(dict(update_history=False) if still else {})) for still in (False, True)}

@pytest.fixture(scope='module')
def other(world, groups): return {still: play_all(world, groups[1], 4, **(dict(update_history=False) if still else {})) for still in (False, True)}

def test_soft_values_by_hand():
    "Two states, two actions: stay or go; staying in the second pays ln 2"
    move = np.array([[[1.,0],[0,1]], [[0,1.],[1,0]]])
    q,v = soft_values(np.array([[0.,0],[np.log(2),0]]), move, 2)
    np.testing.assert_allclose(np.exp(v[1]), [2,3])                       # e^0+e^0, 2+1
    np.testing.assert_allclose(np.exp(v[0]), [2+3, 2*3+2])                # stay: 1*2, go: 1*3; stay: 2*3, go: 1*2
    np.testing.assert_allclose(np.exp(q[0]-v[0][:,None]), [[.4,.6],[.75,.25]])

def test_soft_policy_is_the_best_trade_of_reward_and_entropy():
    "With uncertain moves, too, no policy has more expected reward plus causal entropy than the soft value"
    mdp,rng = random_mdp(0); w = rng.normal(size=3)
    def score(p): v = visits(p, mdp.start, mdp.move); return (v*(mdp.feats@w-np.log(p))).sum()
    top = score(mdp.policy(w))
    assert top==pytest.approx(mdp.expect(w)[0])
    for _ in range(200): assert score(rng.dirichlet(np.ones(3), size=(4,5)))<top

@pytest.mark.parametrize('seed', range(4))
def test_expectations_by_all_trajectories(seed):
    mdp,rng = random_mdp(seed, S=3, A=2, horizon=3); w = rng.normal(size=3); p = mdp.policy(w)
    total,mass = np.zeros(3),0
    for states in product(range(3), repeat=3):
        for actions in product(range(2), repeat=3):
            chance = mdp.start[states[0]]*np.prod([p[t,s,a] for t,(s,a) in enumerate(zip(states, actions))])*np.prod([mdp.move[states[t],actions[t],states[t+1]] for t in range(2)])
            total += chance*sum(mdp.feats[s,a] for s,a in zip(states, actions)); mass += chance
    assert mass==pytest.approx(1); np.testing.assert_allclose(mdp.expect(w)[1], total)

@pytest.mark.parametrize('seed', range(4))
def test_gradient_is_that_of_the_log_likelihood(seed):
    "Of the log-probabilities themselves, for an expert that is no soft-optimal policy"
    mdp,rng = random_mdp(seed); act = rng.dirichlet(np.full(3, .3), size=(4,5)); w = rng.normal(size=3)
    seen = visits(act, mdp.start, mdp.move); expert = mdp.counts(act)
    direct = lambda w: (seen*np.log(mdp.policy(w))).sum()
    level,g = likelihood(mdp, expert, w)
    assert level==pytest.approx(direct(w)); np.testing.assert_allclose(g, approx_fprime(w, direct, 1e-6), atol=1e-5)

@pytest.mark.parametrize('seed', range(5))
def test_a_soft_optimal_expert_is_matched(seed):
    mdp,rng = random_mdp(seed); w = rng.normal(size=3); expert = mdp.counts(mdp.policy(w))
    found = maximise(mdp, expert)[-1]
    assert np.linalg.norm(likelihood(mdp, expert, found)[1])<1e-3
    np.testing.assert_allclose(mdp.policy(found), mdp.policy(w), atol=1e-4)
    slow = ascend(mdp, expert, 3000, .2)[-1]
    assert np.linalg.norm(likelihood(mdp, expert, slow)[1])<1e-3

def corridor(start, seed=0, S=5, d=3, horizon=4):
    rng = np.random.default_rng(seed); move,f = rng.dirichlet(np.ones(S), size=S),rng.random((S,d))*100
    return MDP(start, np.repeat(move[:,None], 2, 1), np.repeat(f[:,None], 2, 1), horizon)

@pytest.mark.parametrize('rate', [1e-6, 1e-2, 1., 1e3])
def test_the_flat_case_is_constant_to_rounding(rate):
    mdp,far = corridor(np.eye(5)[0]),corridor(np.eye(5)[2])
    expert = far.counts(far.policy(np.ones(3)))
    t = trace(mdp, expert, ascend(mdp, expert, 12, rate), mdp.directions())
    assert t.norm.iloc[0]>1 and np.ptp(t.norm)<1e-12*t.norm.iloc[0] and (t.reachable==0).all()
    alike = mdp.counts(np.tile([1.,0], (4,5,1)))
    assert trace(mdp, alike, ascend(mdp, alike, 12, rate), mdp.directions()).norm.max()<1e-12*np.linalg.norm(alike)

@pytest.mark.parametrize('seed', range(4))
def test_directions_are_the_span_of_all_deterministic_policies(seed):
    "Sparse moves, so that some states occur late or never; two features that say the same"
    rng = np.random.default_rng(seed)
    move = np.eye(4)[rng.integers(4, size=(4,2))]; f = rng.normal(size=(4,2,3)); f = np.concatenate([f, 2*f[...,:1]], 2)
    mdp = MDP(np.eye(4)[0], move, f, 2)
    counts = np.array([mdp.counts(np.eye(2)[np.array(c).reshape(2,4)]) for c in product(range(2), repeat=8)])
    apart = counts-counts[0]
    assert np.linalg.matrix_rank(apart, tol=1e-9)==len(mdp.directions()); np.testing.assert_allclose(split(apart, mdp.directions())[1], 0, atol=1e-12)

@pytest.mark.parametrize('seed', range(4))
def test_floor_against_a_general_optimiser(seed):
    rng = np.random.default_rng(seed); tree = Tree(rng.normal(size=(2,4,3))); expert = rng.normal(size=3)*2
    def square(x): return ((expert-tree.counts(x.reshape(2,4)))**2).sum()
    one = [dict(type='eq', fun=lambda x, u=u: x.reshape(2,4)[u].sum()-1) for u in (0,1)]
    best = minimize(square, np.full(8, .25), method='SLSQP', bounds=[(0,1)]*8, constraints=one, options=dict(ftol=1e-14, maxiter=1000)).fun**.5
    low,up = floor(tree, expert, 5000)
    assert low<=best+1e-4 and up>=best-1e-4 and up-low<.01
    for _ in range(200): assert np.linalg.norm(likelihood(tree, expert, rng.normal(size=3)*10)[1])>=low-1e-12

def test_span_of_nothing(): assert span(np.zeros((7,3))).shape==(0,3) and split(np.ones(3), span(np.zeros((7,3))))[1].sum()==3

def test_sessions_do_not_depend_on_how_many_are_played_together(world, groups, own):
    again = play_all(world, groups[0], 4, rows=20)
    for name in ('obs','count','shown','hits'):
        for a,b in zip(getattr(again, name), getattr(own[False], name)): np.testing.assert_array_equal(a, b)

def test_sessions_are_those_of_the_environment(world, groups, own):
    "Every one of the 16 sessions of every user, played by itself"
    s = own[False]
    for actions in product(range(2), repeat=4):
        env = ColdStartEnv(world, 10, 4, autoreset=False); obs,_ = env.reset(seed=0, options=dict(users=groups[0]))
        for t,a in enumerate(actions):
            before,after = (int(number(np.array(actions[:k]))) if k else 0 for k in (t,t+1))
            np.testing.assert_array_equal(obs, s.obs[t][:,before])
            obs,_,_,_,info = env.step(np.full(10, a)); np.testing.assert_array_equal(info['hits'].sum(1), s.hits[t][:,after])

@pytest.mark.parametrize('kind', SETS)
def test_tree_gradient_by_finite_differences(own, kind):
    tree = Tree(totals(features(own[False], kind)[0])); rng = np.random.default_rng(0); w = rng.normal(size=tree.phi.shape[2])
    expert,ways = tree.counts(number(follow(own[False], Heuristic()))),rng.normal(size=(5,len(w)))
    g = likelihood(tree, expert, w)[1]
    for v in ways: assert (likelihood(tree, expert, w+1e-5*v)[0]-likelihood(tree, expert, w-1e-5*v)[0])/2e-5==pytest.approx(g@v, abs=1e-5)

def test_steps_make_up_sessions(own):
    "The product of the step probabilities is the probability of the session"
    tree = Tree(totals(features(own[False], 'outcome')[0])); w = np.array([3.,-9,4,1]); p = stepwise(tree.phi@w)
    for n in range(16):
        chance = np.prod([p[t][:,n>>(4-t),n>>(3-t) & 1] for t in range(4)], 0)
        np.testing.assert_allclose(chance, tree.probs(w)[:,n])

@pytest.mark.parametrize('scale', ['raw','unit'])
@pytest.mark.parametrize('rate', [1e-4, .1])
def test_readings(own, other, scale, rate):
    "Out of reach and the same users: nothing. Out of reach and other users: flat to rounding"
    got = {}
    for name in ('same','static','static-others','static-sums','others'):
        tree,expert = reading(name, own, other, Heuristic(), 'state_only', scale)
        got[name] = trace(tree, expert, ascend(tree, expert, 12, rate), tree.directions()),np.linalg.norm(expert)
    t,size = got['static']; assert t.norm.max()<1e-12*size
    for name in ('static-others','static-sums'): t,size = got[name]; assert t.norm.iloc[0]>1e-3*size and np.ptp(t.norm)<1e-12*size and np.allclose(t.unreachable, t.norm)
    t,size = got['same']; assert t.unreachable.max()<1e-6*size and np.ptp(t.norm)>1e-6*t.norm.iloc[0]
    assert got['others'][0].unreachable.std()<1e-6*got['others'][1]

@pytest.mark.parametrize('scale', ['raw','unit'])
def test_a_small_rate_is_flat_too_but_falls(own, other, scale):
    "Nothing out of reach: twelve norms that spread as little as the published ones, each below the last, in proportion to the rate"
    tree,expert = reading('same', own, other, Heuristic(), 'state_only', scale); goal = movement(PUBLISHED).spread
    rate,got = goal/(11*slope(tree, expert)),{}
    for times in (.1, 1, 10): got[times] = movement(trace(tree, expert, ascend(tree, expert, 12, times*rate), tree.directions()).norm)
    assert got[1].spread==pytest.approx(goal, rel=.01) and got[1].spread==pytest.approx(10*got[.1].spread, rel=.02) and got[10].spread==pytest.approx(10*goal, rel=.2)
    assert all(m.falling==1 and m['first']>.1 for m in got.values()) and (scale=='unit' or got[1]['first']>50)
    for name in ('static-others','static-sums'):
        m = [movement(trace(*(x := reading(name, own, other, Heuristic(), 'state_only', scale)), ascend(*x, 12, k*rate), x[0].directions()).norm) for k in (1, 1000)]
        assert all(x.spread<1e-12 and x.falling==0 for x in m)               # the two causes: no fall at any rate

def test_the_published_norms_have_no_direction():
    ups = [b>a for a,b in zip(PUBLISHED, PUBLISHED[1:])]
    assert ups.count(True)==6 and movement(PUBLISHED).falling==pytest.approx(ups.count(False)/11) and movement(np.full(12, 809.7)).falling==0

@pytest.mark.parametrize('seed', range(3))
def test_slope_is_the_curvature_along_the_gradient(seed):
    "Against the first step of gradient ascent itself; the variance by a covariance matrix"
    rng = np.random.default_rng(seed); tree = Tree(rng.normal(size=(4,8,3))*30); expert = rng.normal(size=3)*50
    g = likelihood(tree, expert, np.zeros(3))[1]; along = g/np.linalg.norm(g)
    assert slope(tree, expert)==pytest.approx(along@np.mean([np.cov(x.T, bias=True) for x in tree.phi], 0)@along)
    n = [np.linalg.norm(likelihood(tree, expert, w)[1]) for w in ascend(tree, expert, 2, 1e-7)]
    assert (n[0]-n[1])/n[0]==pytest.approx(1e-7*slope(tree, expert), rel=1e-2)
    assert slope(tree, tree.counts(tree.probs(np.zeros(3))))==0

def test_errors_know_the_ridge():
    "Sessions that say nothing: 1/sqrt(4 users x .25), and no end of error without a ridge"
    nothing = Tree(np.zeros((4,2,1)))
    assert errors(nothing, np.zeros(1), .25)==pytest.approx(1) and errors(nothing, np.zeros(1))==np.inf

def test_state_action_features_can_say_the_rule(own):
    "Discovery for those who know little: a reward in these features makes the rule likely, and state_only leaves only consequences"
    s = own[False]; act = follow(s, Heuristic())
    fit = {}
    for kind in SETS:
        tree = Tree(totals(features(s, kind)[0])); fit[kind] = repeats(s, tree.phi, maximise(tree, tree.counts(number(act)), 100, 1e-4)[-1], act)
    assert fit['state_action']['agreement/everywhere']>.99 and fit['state_action'].likelihood>max(fit[k].likelihood for k in ('state_only','outcome'))

def test_what_cannot_be_asked_for(world, groups, own, other):
    with pytest.raises(ConfigError, match='unknown reading'): reading('sums', own, other, Heuristic())
    with pytest.raises(ConfigError, match='unknown scale'): features(own[False], 'outcome', 'row')
    with pytest.raises(ConfigError, match='two groups'): two_groups(world, 0, 0)
    other_forms = play_all(cold_start_world('synthetic-movielens', 0, encoder='tfidf-svd', rating_count='linear'), groups[0][:1], 1)
    with pytest.raises(ConfigError, match='default forms'): features(other_forms, 'state_only')

def test_constant_policies_take_the_outermost_sessions(own):
    assert set(number(follow(own[False], Constant(0, n_actions=2))))=={0} and set(number(follow(own[False], Constant(1, n_actions=2))))=={15}
