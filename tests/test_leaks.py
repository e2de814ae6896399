"The detector: every environment, every planted leak, and by hand; the scores of the shaped reward against the environment's own"
from dataclasses import replace
import numpy as np, pandas as pd, pytest
from gymnasium.vector import AutoresetMode
from scipy.stats import kendalltau
from rlrec.core import ConfigError
from rlrec.agents.policies import Uniform
from rlrec.analyses.cold_start import compare,make_policy
from rlrec.analyses.leaks import (PLANTS,SCORES,BonusChooser,Case,Tampered,absent,allowed,bandit_cases,cold_start_cases,dealt,differences,empty,feed_cases,feed_futures,
    flips,leaks,only,people,planted_cases,regraded,scores,shown_in,tasted_case,tau,walk,with_baits)
from rlrec.data.catalogue import load
from rlrec.envs import REGISTERED
from rlrec.envs.cohorts import cohort
from rlrec.envs.cold_start import ColdStartEnv,build_world,fit_tools
from rlrec.envs.feed import FeedEnv
from rlrec.envs.feed_methods import SIMULATED,feed_setup

TEXT = dict(discovery=dict(encoder='tfidf-svd'))
FEEDS = {'synthetic-coat': {}, 'synthetic-kuairec': dict(size=.04)}

pytestmark = pytest.mark.xdist_group('leaks')    # every environment is walked once

@pytest.fixture(scope='module')
def movies(): return load('synthetic-movielens')

@pytest.fixture(scope='module')
def world(movies):
    data,users = cohort(movies)
    return with_baits(build_world(data, users, fit_tools(data, ('precision','discovery','popularity'), **TEXT), 100))

@pytest.fixture(scope='module')
def every(movies):
    "Every environment, walked with another seed than in the notebook"
    cases = cold_start_cases(movies, rows=60, seed=3, **TEXT)+bandit_cases(load('digits'), load('synthetic-music'), seed=3)
    for name,kw in FEEDS.items():
        setup = feed_setup(name)
        cases += feed_cases(load(name, **kw), replace(setup, model=setup.model | dict(members=1, epochs=1, hidden=(16,))), rows=50, steps=8, seed=3)
    return pd.concat([c.run(3) for c in cases], ignore_index=True)

def test_no_environment_leaks(every):
    assert not (every.verdict=='leak').any() and (every.compared>0).groupby(every.env).any().all()
    fixed = every[every.env!='cold start, cohort']
    assert (fixed[fixed.what.isin(['slate','mask'])].changed==0).all() and set(fixed[(fixed.what=='observation') & (fixed.changed>0)].future)=={'range'}

def test_every_environment_and_method_is_there(every):
    names = ' '.join(every.env.unique())
    for word in ('cold start','images','music','ads','behaviour','feed','simulated'): assert word in names
    assert len({Case(e, None, {}).kind for e in every.env.unique()})==len(REGISTERED)==7
    assert all(f'{d} simulated, {m}' in names for m in SIMULATED for d in ('coat','kuairec'))

def test_futures_are_really_others(every):
    "Where an environment judges, its reward moves in some future; where nothing is declared to be paid by the truth, it does not"
    paid = every[every.what=='reward'].groupby('env').changed.sum()
    practise = paid.index.str.contains('simulated') & ~paid.index.str.endswith('gt')
    assert (paid[practise]==0).all() and (paid[~practise]>0).all()

def test_simulated_feeds_share_the_exit_rule_of_the_judge(every):
    ends = every[every.env.str.contains('simulated') & (every.what=='end') & (every.changed>0)]
    assert set(ends[ends.env.str.startswith('kuairec')].future)=={'tags'} and set(ends[ends.env.str.startswith('coat')].future)>={'truth'}
    assert ends.env.nunique()==2*len(SIMULATED) and set(ends.verdict)=={'declared'}

def test_the_shaped_reward_pays_for_what_was_never_shown(every):
    moved = every[(every.what=='reward') & (every.future=='unmet')].set_index('env').changed
    assert (moved[['cold start, hit','cold start, hits','cold start, leaving']]==0).all() and (moved[['cold start, shaped','cold start, shaped per movie']]>0).all()

@pytest.mark.parametrize('future,moves', [('unmet', {'info/left','info/left_before'}), ('regraded', set())])
def test_two_futures_cost_no_row(every, future, moves):
    "What was shown is liked as before, so walks are compared to their end, and at most what is left differs"
    for env in ('cold start, hit','cold start, hits','cold start, leaving'):
        f = every[(every.env==env) & (every.future==future)].set_index('what'); f = f.drop(index='end') if env=='cold start, leaving' and future=='unmet' else f
        if env!='cold start, leaving' or future=='regraded': assert f.compared.reward==60*12 and f.compared['end']==2*60*12
        assert set(f.index[f.changed>0])==moves

def test_who_takes_part_is_chosen_by_the_future(every):
    assert every[(every.env=='cold start, cohort') & (every.what=='info/user')].share.item()>.5

@pytest.mark.parametrize('seed', [0, 1])
def test_every_plant_is_found_where_it_is(movies, seed):
    found = pd.concat([c.run(seed) for c in planted_cases(movies, seed=seed, **TEXT)])
    leak = found[found.verdict=='leak']
    for name,(part,step,*_) in PLANTS.items():
        mine = leak[leak.env==name]
        assert set(mine.what)=={part} and mine.step.min()==step and ('regraded' if name=='stars of the hit' else 'unmet') in set(mine.future)

@pytest.mark.parametrize('seed', [1, 2])
def test_what_comes_with_a_hit_needs_a_future_of_its_own(movies, seed):
    "The stars of a movie that hit: nothing in the futures that change what hits or leave it as it was, but by chance; always in the one with other stars"
    case, = [c for c in planted_cases(movies, rows=60, steps=6, seed=seed, **TEXT) if c.name=='stars of the hit']
    f = case.run(seed); f = f[f.what=='observation'].set_index('future').changed
    assert f.regraded>50 and f[['empty','unmet']].sum()==0 and f[['dealt','people']].sum()<10

def test_regraded(movies):
    other = regraded(movies); key = lambda d: d.test.sort_values(['user','item'], ignore_index=True)
    a,b = key(movies),key(other)
    assert (a[['user','item']]==b[['user','item']]).all(None) and ((a.value>=4)==(b.value>=4)).all() and other.train is movies.train
    assert (a.value!=b.value).mean()>.2 and (a.time!=b.time).mean()>.9 and sorted(a.value)==sorted(b.value) and sorted(a.time)==sorted(b.time) and other.test.time.is_monotonic_increasing

@pytest.mark.parametrize('name', FEEDS)
@pytest.mark.parametrize('taste,found', [(.001, {('truth','reward')}), (1e-6, {('truth','reward')}), (0., set())])
def test_a_reward_that_tasted_the_truth(name, taste, found):
    f = tasted_case(load(name, **FEEDS[name]), taste, rows=40).run()
    bad = f[(f.verdict=='leak') & (f.future!='range')]
    assert set(zip(bad.future, bad.what))==found

def test_one_bit_in_one_entry(world):
    "The smallest change there is, at one place of one moment"
    def twist(env, obs, reward, info):
        if env._t[0]==4: obs[7,200] = np.nextafter(obs[7,200], np.float32(2))
        return obs,reward,info
    make = lambda: ColdStartEnv(world, 20)
    f = leaks(make, dict(same=make, twisted=lambda: Tampered(make(), twist)), Uniform(2), steps=9)
    r = f[f.changed>0]
    assert len(r)==1 and tuple(r[['future','what','changed','step','row','place','verdict']].iloc[0])==('twisted','observation',1,4,7,200,'leak')

class Script:
    "An environment that recites: per moment observation, reward, end, each (rows,)"
    metadata = {'autoreset_mode': AutoresetMode.SAME_STEP}
    def __init__(self, obs, reward, end): self.obs,self.reward,self.end = map(np.asarray, (obs, reward, end))
    def reset(self, seed=None): self.t = 0; return self.obs[0][:,None],{}
    def step(self, a):
        self.t += 1; end = self.end[self.t].astype(bool)
        return self.obs[self.t][:,None],self.reward[self.t],end,end&False,dict(final_obs=self.obs[self.t][:,None])

class Idle:
    def act(self, obs, info, greedy=True): return np.zeros(len(obs), int)

def brute(a, b):
    "Changed observations by the rule in words, row by row"
    T,n = a.obs.shape; out,step = 0,True; told = [True]*n
    for t in range(T):
        for i in range(n):
            if t and told[i]:
                same = a.reward[t,i]==b.reward[t,i] and a.end[t,i]==b.end[t,i]
                told[i] = bool(same)
                if same and a.end[t,i]: out += a.obs[t,i]!=b.obs[t,i]         # its last observation
        if t:
            step = step and (a.end[t]==b.end[t]).all()
            for i in range(n):
                if a.end[t,i] or b.end[t,i]: told[i] = bool(step and a.end[t,i] and b.end[t,i])
        out += sum(told[i] and a.obs[t,i]!=b.obs[t,i] for i in range(n))
    return int(out)

def test_comparison_against_brute_force():
    rng = np.random.default_rng(0); total = 0
    for _ in range(300):
        T,n = rng.integers(2, 7),rng.integers(1, 4)
        make = lambda p: Script(rng.random((T, n))<p, (rng.random((T, n))<.2).astype(float), rng.random((T, n))<.3)
        a,b = make(.5),make(.5)
        if rng.random()<.7: b.end = a.end
        walked = [walk(e, lambda t,obs,info: np.zeros(n, int), steps=T-1)[1] for e in (a, b)]
        got = differences(*walked).set_index('what').changed
        assert got['observation']==brute(a, b); total += got['observation']
    assert total>300

def test_the_last_bit_is_the_sign_of_zero_too():
    zero = np.zeros((4,2)); other = zero.copy(); other[2,1] = -0.
    walked = [walk(Script(o, zero, zero), lambda t,obs,info: np.zeros(2, int), steps=3)[1] for o in (zero, other)]
    assert differences(*walked).set_index('what').changed['observation']==1
    nan = np.full((4,2), np.nan); assert differences(*[walk(Script(nan, zero, zero), lambda t,obs,info: np.zeros(2, int), steps=3)[1] for _ in range(2)]).changed.sum()==0

def test_declared_by_part_future_or_all():
    assert allowed('reward', 'dealt', ('reward',)) and allowed('end', 'tags', ('tags:end',)) and not allowed('end', 'truth', ('tags:end',)) and allowed('mask', 'x', ('*',)) and allowed('mask', 'x', ('x:*',))

def test_errors():
    with pytest.raises(ConfigError, match='restarts rows in the step that ends them'): walk(type('E', (), dict(metadata={}))(), None)
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match='does not repeat itself'): leaks(lambda: Script(rng.random((3,2)), np.zeros((3,2)), np.zeros((3,2))), dict(other=None), Idle(), steps=2)
    still = lambda: Script(np.zeros((3,2)), np.zeros((3,2)), np.zeros((3,2)))
    with pytest.raises(ConfigError, match='nothing to compare with'): leaks(still, {}, Idle(), steps=2)
    for kw in (dict(steps=4), dict(horizon=5)):
        with pytest.raises(ConfigError, match='from the fifth step'): planted_cases(None, **kw)

def test_futures(movies):
    for f in (dealt, people, absent, empty): assert (f(movies).train is movies.train) and len(f(movies).test)<=len(movies.test)
    assert sorted(people(movies).test.user)==sorted(movies.test.user) and absent(movies).test.user.nunique()==movies.test.user.nunique()//2
    assert only(movies, movies.test.user, movies.test['item']).test.equals(movies.test) and not len(only(movies, [0], [-1]).test)
    coat = load('synthetic-coat'); user,item = shown_in(lambda: FeedEnv(coat, 30, mode='NX_0'), steps=5)
    f = feed_futures(coat, user, item)
    np.testing.assert_array_equal(f['unmet'].truth[user,item], coat.truth[user,item]); np.testing.assert_array_equal(f['range'].truth[user,item], coat.truth[user,item])
    assert (f['unmet'].truth!=coat.truth).any() and (f['truth'].distance!=coat.distance).any() and f['tags'].truth is coat.truth

# the shaped reward

@pytest.mark.parametrize('policy', ['heuristic','random','always-discovery','popularity','genre-bait','genre-oracle'])
def test_scores_are_what_the_environments_pay(world, policy):
    tools,made = tuple(world.lists),{policy: make_policy(policy, tuple(world.lists))}
    mine = scores(world, compare(world, made, 120, 5, tools=tools)[policy], bonus=.25)
    for s,kw in zip(SCORES, ({}, dict(reward='shaped', bonus=.25), dict(reward='shaped', bonus=.25, bonus_per='movie'))):
        np.testing.assert_allclose(mine[s], compare(world, made, 120, 5, tools=tools, **kw)[policy].total, atol=1e-4)

def test_who_wants_the_bonus_only(world):
    tools = tuple(world.lists); made = {p: make_policy(p, tools) for p in ('always-precision','always-discovery','random','genre-oracle')}
    r = compare(world, made, 200, 1, tools=tools) | compare(world, dict(b=BonusChooser()), 200, 1, tools=tools, reward='shaped', bonus_per='movie')
    s = {p: {k: v.mean() for k,v in scores(world, x).items()} for p,x in r.items()}
    assert s['genre-oracle']['hit']==0 and s['genre-oracle']['shaped']<=1+1e-9 and s['genre-oracle']['shaped-per-movie']<=10+1e-9
    bonus = lambda p: s[p]['shaped-per-movie']-s[p]['hit']
    one = max(bonus('always-precision'), bonus('always-discovery'))
    assert bonus('b')>one>bonus('random')                                   # more than either tool alone; a coin has less than the better one

def test_a_flip_among_many_pairs_is_corrected():
    "The same flip, with the same seeds: clear as the only pair; not among 91, where p is 91 times as large"
    t = pd.DataFrame(dict(a=[1.,1.02,1.01], b=[0,.01,-.01])); o = pd.DataFrame(dict(a=[0,.1,-.1], b=[1.,1.2,1.05]))
    few = flips(t, o); assert len(few)==1 and few.clear[0] and few.p_holm[0]==few.p[0]
    apart = {f'p{i}': np.array([10.,10.3,9.9])*(i+2) for i in range(12)}
    many = flips(t.assign(**apart), o.assign(**apart)); assert len(many)==1 and not many.clear[0] and many.p[0]==few.p[0] and many.p_holm[0]==pytest.approx(91*few.p[0])

def test_flips_and_tau_by_counting():
    rng = np.random.default_rng(0)
    for _ in range(8):
        t,o = (pd.DataFrame(rng.normal(size=(3,5)), columns=list('abcde')) for _ in range(2))
        turned = {frozenset(p) for p in zip(*flips(t, o)[['better','worse']].to_numpy().T)}
        m,k = t.mean(),o.mean()
        assert turned=={frozenset((x, y)) for x in 'abcde' for y in 'abcde' if m[x]>m[y] and k[x]<k[y]}
        assert tau(t, o)==pytest.approx([kendalltau(t.loc[i], o.loc[i]).statistic for i in range(3)])
        both = pd.DataFrame([t.mean(), t.mean()]); other = pd.DataFrame([o.mean(), o.mean()])
        assert tau(both, other)[0]==pytest.approx(1-2*len(flips(both, other))/10)
