"DARLR in simulated feeds: against loops in plain Python, against the recommender alone, against itself; and that every option trains"
from functools import cache
import numpy as np, pandas as pd, pytest, torch
from rlrec.core import ConfigError,stream
from rlrec.agents.darlr import DARLR
from rlrec.agents.selector import references
from rlrec.agents.checkpoints import Checkpoint,Training
from rlrec.agents.dqn import History
from rlrec.agents.tracked import TrackedA2C
from rlrec.data.base import frame
from rlrec.data.coat import synthetic_coat
from rlrec.data.feed import FeedDataset
from rlrec.data.kuairec import synthetic_kuairec
from rlrec.envs.simulated_feed import SimulatedFeedEnv
from rlrec.tools.entropy import Entropy

@cache
def world(name):
    "A twin, a first table that is not the truth, and entropy where the log has times"
    data = synthetic_coat() if name=='coat' else synthetic_kuairec(.05)
    return data,data.truth+.3*stream(0, 'test-darlr', name).standard_normal(data.truth.shape, np.float32),Entropy((1,2)).fit(data) if data.timed else None

def feed(name='kuairec', n=12, lam=.05, static=False, **kw):
    "Users leave KuaiRec when a tag comes back, and Coat never"
    data,first,entropy = world(name)
    belief = dict(uncertainty=np.abs(first-data.truth)) if static else dict(uncertainty=0., bounds=(first, np.array([0, np.ptp(first)])))
    return SimulatedFeedEnv(data, first, lambda_uncertainty=lam, entropy=entropy, lambda_entropy=1. if entropy else 0., num_envs=n, **belief | kw)

def made(env, k_sel=4, candidates=None, seed=0, refs=None, kind=DARLR, lists={}, **kw):
    "An agent that is small and fast"
    given = dict(references=refs or references(env.data.truth, k_sel, candidates, **lists), k_sel=k_sel) if kind is DARLR else {}
    return kind(env.single_observation_space, env.single_action_space, seed=seed, **given, **dict(tracker='average', embedding=8, hidden=(16,)) | kw)

def collected(agent, env, seed=1):
    "One collection outside of a training: the rollout and what was chosen"
    agent.begin(Training(agent, env, History(env.num_envs), agent.streams, midway=False), env)
    r = agent.collect(env, *env.reset(seed=seed), stream(seed, 'act'))
    return r,agent.pending[1]

def watched(agent, env, steps=200):
    "What a training's collections were"
    seen = []
    agent.watch = seen.append
    agent.learn(env, steps)
    return seen

def same(a, b): return torch.equal(a.flat, b.flat) and torch.equal(a.selector_flat, b.selector_flat)

@pytest.mark.parametrize('name,candidates,select', [('coat',None,'learned'), ('coat',40,'learned'), ('kuairec',None,'learned'), ('kuairec',20,'nearest'), ('kuairec',20,'random'), ('kuairec',None,'random')])
def test_never_itself_and_nobody_twice(name, candidates, select):
    env = feed(name); agent = made(env, candidates=candidates, select=select)
    for c in watched(agent, env):
        user,refs = c['user'],c['references']
        assert (refs!=user[:,None]).all() and (np.diff(np.sort(refs, 1), axis=1)>0).all()
        assert (refs[:,:,None]==agent.references.lists[agent.references.group[user]][:,None]).any(2).all()

def test_everybody_else_is_the_mean_of_their_column():
    env = feed(n=6, mode='NX_0'); n = len(env.reward)
    for c in watched(made(env, n-1), env, 60):
        np.testing.assert_allclose(c['estimate'], (env.reward.sum(0, dtype=float)[c['item']]-env.reward[c['user'],c['item']])/(n-1), rtol=1e-5)

@pytest.mark.parametrize('name,mode,static', [('coat','FB',False), ('kuairec','FB',False), ('kuairec','NX_0',True)])
def test_without_its_own_parts_it_is_the_recommender_alone(name, mode, static):
    "To the last bit, with sessions of different length, the entropy's bonus, and a penalty that does not move"
    lam = .3 if static else 0.
    env,other = (feed(name, mode=mode, lam=lam, static=static, horizon=8) for _ in range(2))
    first,agent,alone = env.table.copy(),made(env, write_back='off'),made(other, kind=TrackedA2C)
    mine,theirs = agent.learn(env, 600),alone.learn(other, 600)
    assert torch.equal(agent.flat, alone.flat) and (env.table==first).all()
    for k in theirs: np.testing.assert_array_equal(mine[k], theirs[k])
    lengths = collected(agent, env)[0]['live'].sum(0)
    assert (len(set(lengths))>1)==(name=='kuairec')

@pytest.mark.parametrize('candidates,settings', [(None,{}), (20,dict(previous='time', write_back='live')), (20,dict(select='random', user_state=True))])
def test_all_at_once_is_step_by_step(candidates, settings):
    (a,x),(b,y) = ((made(env, candidates=candidates, batched=batched, **settings), env) for batched,env in ((True, feed(mode='NX_0')), (False, feed(mode='NX_0'))))
    for c,d in zip(watched(a, x), watched(b, y), strict=True):
        for k in ('user','item','references'): np.testing.assert_array_equal(c[k], d[k])
        for k in ('estimate','before','penalty'): np.testing.assert_allclose(c[k], d[k], atol=1e-4)
    np.testing.assert_allclose(x.table, y.table, atol=1e-4)

LOOPS = [('coat',None,{}), ('kuairec',None,dict(mode='NX_0', previous='time')), ('kuairec',20,dict(write_back='live', gain='increment')), ('kuairec',20,dict(gain='constant', eta=1., floor=.6)), ('kuairec',20,dict(use_gain=False, static=True))]

@pytest.mark.parametrize('name,candidates,kw', LOOPS)
def test_against_loops(name, candidates, kw):
    "What is paid to both agents, and what is written, interaction by interaction; the table has moved before"
    kw = dict(kw)
    static,mode = kw.pop('static', False),kw.pop('mode', 'FB')
    env = feed(name, mode=mode, static=static, lam=.5, horizon=8); agent = made(env, 4, candidates, **kw)
    agent.learn(env, 300)
    s,was = agent.settings,agent.live(env).astype(float)
    r,c = collected(agent, env)
    r0 = TrackedA2C.collect(agent, env, *env.reset(seed=1), stream(1, 'act'))
    x = env.data.truth-env.data.truth.mean(0); x /= np.linalg.norm(x, axis=1, keepdims=True)
    cos,lowest,span,last,k,source = (1+x @ x.T)/2,env.reward.min(),np.ptp(env.reward),{},0,was if s.write_back=='live' else env.reward.astype(float)
    paid,earned = np.zeros(r['live'].shape),agent.selector_reward(env, c)
    for t,row in zip(*r['live'].nonzero()):
        u,i,refs = c['user'][k],c['item'][k],c['references'][k]
        level = [source[refs[:j+1],i].mean() for j in range(4)]
        alike,varied = cos[u,refs],np.array([np.mean([1-cos[v,w] for w in refs[:j]]) if j else 0 for j,v in enumerate(refs)])
        penalty = min(abs(level[-1]-(last.get(row, was[u,i]) if s.previous=='time' else was[u,i]))/max(alike.mean()+varied.mean(), s.floor), span)
        last[row],scaled = level[-1],(np.array([was[u,i], *level])-lowest)/span
        paid[t,row] = level[-1]-was[u,i]-(0 if static else .5)*penalty
        gain = dict(level=scaled[1:], increment=np.diff(scaled), constant=scaled[-1])[s.gain] if s.use_gain else 0
        np.testing.assert_allclose(earned[k], gain+2*alike+.1*varied, atol=1e-5)
        np.testing.assert_allclose(c['penalty'][k], penalty, atol=1e-4)
        k += 1
    assert k==len(c['user']) and (r['action'][r['live']]==c['item']).all() and (c['varied'][:,0]==0).all() and (c['varied'][:,1:]>0).all()
    np.testing.assert_allclose(r['reward'], r0['reward']+paid, atol=1e-5)
    agent.write(env, c)
    for u,i in set(zip(c['user'], c['item'])): was[u,i] += s.eta*(np.mean(c['estimate'][(c['user']==u) & (c['item']==i)])-was[u,i])
    np.testing.assert_allclose(agent.live(env), was, atol=1e-5)

@pytest.mark.parametrize('settings', [{}, dict(write_back='live'), dict(eta=1.), dict(write_back='live', eta=1.), dict(previous='time'), dict(token='after', batched=False)])
def test_nobody_is_paid_less_than_nothing(settings, monkeypatch):
    "The shift leaves room for the largest penalty, and the largest token is 1"
    env = feed(lam=2.); agent,least,token = made(env, lr=1e-2, **settings),[],[]
    def looked(r): least.append(r['reward'][r['live']].min()); token.append(r.cat('x')[:,1::2].max().item()); return DARLR.prepare(agent, r)
    monkeypatch.setattr(agent, 'prepare', looked)
    agent.learn(env, 1000)
    assert min(least)>-1e-4 and max(token)<=1 and env.table.max()/env.span<=1+1e-6 and np.isfinite(env.table).all()

@pytest.mark.parametrize('token', ['before','after'])
def test_what_the_next_state_tells(token):
    env = feed('coat', lam=1.); agent = made(env, token=token, batched=False)
    agent.learn(env, 300)
    plain = TrackedA2C.collect(agent, env, *env.reset(seed=1), stream(1, 'act'))['reward'][0]
    r,_ = collected(agent, env)
    assert (np.abs(r['reward'][0]-plain)>1e-3).any()
    told = (r['reward'][0] if token=='after' else plain)/env.span
    np.testing.assert_allclose(r.steps[1]['x'][:,-1], np.minimum(told, 1), atol=1e-6)

@pytest.mark.parametrize('candidates', [None, 20])
def test_a_choice_knows_nothing_of_what_comes_later(candidates):
    env = feed(mode='NX_0'); agent = made(env, candidates=candidates)
    agent.learn(env, 200)
    r,c = collected(agent, env)
    n,x = len(c['user']),r.cat('x'); half = n//2
    later = np.r_[:half,half+stream(0, 'later').permutation(n-half)]
    picks = [agent.choose_references(agent.state(x[order]), c['user'][order], stream(0, 'select')) for order in (np.arange(n), later)]
    np.testing.assert_array_equal(picks[0][:half], picks[1][:half])
    assert (picks[0][half:]!=picks[1][half:]).any()

def planted(kinds=3, each=20, items=30):
    "Users of a few kinds, of whom each likes other items"
    rng,n = stream(0, 'planted'),kinds*each
    kind = rng.permutation(np.arange(n)%kinds)
    truth = np.where(np.arange(items)%kinds==kind[:,None], 4, 2).astype(np.float32)+rng.random((n, items), np.float32)
    log,table = frame([0], [0], [0], [0]),pd.DataFrame(dict(item_id=np.arange(items), title='', categories=pd.Series([()]*items, dtype=object), year=np.nan, tags=''))
    return kind,FeedDataset('planted', log, log, table, pd.DataFrame(dict(user_id=np.arange(n))), (2.,5.), 'x', truth=truth)

def test_it_finds_its_own_kind():
    "Far above chance, and above the untrained"
    kind,data = planted()
    env = SimulatedFeedEnv(data, data.truth, 0., .05, bounds=(data.truth, np.array([0, np.ptp(data.truth)])), num_envs=20, horizon=5)
    agent = made(env, 4, use_gain=False, selector_share=1., selector_lr=3e-3)
    def share(c): return (kind[c['references']]==kind[c['user']][:,None]).mean()
    before,_,after = share(collected(agent, env)[1]),agent.learn(env, 12_000),share(collected(agent, env)[1])
    assert abs(before-19/59)<.1 and after>.8

def test_the_same_seed_the_same_everything():
    def trained(seed): env = feed(); agent = made(env, seed=seed); return agent,agent.learn(env, 300),env.table
    (a,h,x),(b,g,y),(c,_,_) = trained(0),trained(0),trained(1)
    assert same(a, b) and (x==y).all() and not same(a, c)
    for k in h: np.testing.assert_array_equal(h[k], g[k])

@pytest.mark.parametrize('settings', [{}, dict(user_state=True, frozen=False), dict(candidates=20, selector_reader='average')])
def test_saved_and_loaded(settings, tmp_path):
    env = feed(); agent = made(env, **settings)
    agent.learn(env, 200); agent.save(tmp_path)
    other = DARLR.load(tmp_path)
    assert same(agent, other) and {**other.config(), 'hidden': (16,)}==agent.config()
    for k,v in agent.references.arrays().items(): np.testing.assert_array_equal(getattr(other.references, k), v)
    obs,info = env.reset(seed=3)
    x = agent.see(obs, info)
    np.testing.assert_array_equal(agent.probs(obs, info), other.probs(obs, info))
    np.testing.assert_array_equal(*(a.choose_references(a.state(x), info['user'], stream(0, 'select')) for a in (agent, other)))

RESUMED = [{}, dict(write_back='live', gain='increment'), dict(frozen=False), dict(frozen=False, write_back='off'), dict(user_state=True, coupled=True), dict(token='after', batched=False, previous='time', candidates=20), dict(select='nearest')]

@pytest.mark.parametrize('settings', RESUMED)
def test_a_training_that_was_interrupted_goes_on(settings, tmp_path):
    class Stop(Exception): pass
    def some(folder=None, until=500):
        def look(step, agent):
            if step>=until: raise Stop
            return step
        env = feed(mode='NX_0'); agent = made(env, **settings)
        return agent,agent.learn(env, 400, look, 100, folder),env.table
    a,h,x = some()
    with pytest.raises(Stop): some(Checkpoint(tmp_path, every=0), 300)
    b,g,y = some(tmp_path)
    assert same(a, b) and (x==y).all()
    for k in ('returns','return_step','eval'): np.testing.assert_array_equal(h[k], g[k])
    for name in ('own','pair'): np.testing.assert_array_equal(getattr(a.references, name), getattr(b.references, name))

def test_references_that_were_given_stay_as_they_are(tmp_path):
    "Another agent may have been given the same"
    env = feed(); refs,kept = (references(env.data.truth, 4) for _ in range(2))
    agent = made(env, refs=refs, frozen=False)
    agent.learn(env, 200)
    agent.set_arrays(made(env, refs=references(env.reward, 4)).arrays())
    for k,v in kept.arrays().items(): np.testing.assert_array_equal(getattr(refs, k), v)

@pytest.mark.parametrize('coupled', [False, True])
def test_the_selector_moves_the_tracker_only_if_they_are_coupled(coupled):
    "And never the recommender's heads"
    env = feed(); agent = made(env, coupled=coupled)
    agent.learn(env, 300)
    c = collected(agent, env)[1]
    before,chosen = agent.arrays(),agent.selector_flat.clone()
    agent.train_selector(env, c, stream(0, 'share'))
    moved = {k for k,v in agent.arrays().items() if '/' not in k and (v!=before[k]).any()}
    assert not torch.equal(agent.selector_flat, chosen)
    assert (bool(moved)==coupled) and all(k.startswith('both.0.') for k in moved), moved

OPTIONS = [*[dict(tracker=t) for t in ('attention','gru','caser','nextitnet')], dict(tracker='attention', read_out='oldest'), *[dict(select=s) for s in ('nearest','random')], *[dict(gain=g) for g in ('increment','constant')],
    dict(use_gain=False), *[dict(write_back=w) for w in ('live','off')], dict(write_back='live', eta=1.), dict(previous='time'), dict(token='after', batched=False), dict(batched=False), dict(lambda_s=0., lambda_d=0.),
    dict(selector_reader='average'), dict(selector_layers=1, selector_window=1), dict(selector_heads=3, selector_window=10, selector_width=20), dict(selector_share=1., selector_gamma=0.), dict(coupled=True), dict(user_state=True),
    dict(frozen=False), dict(candidates=9), dict(k_sel=1), dict(floor=1.), dict(clip=.5, minibatch=16), *[dict(lists=l) for l in (dict(cosine='raw'), dict(projection='none'), dict(include_self=True), dict(width=4))]]

@pytest.mark.parametrize('settings', OPTIONS, ids=lambda s: ','.join(f'{k}={v}' for k,v in s.items()))
def test_every_option_trains(settings):
    "And it is an option: something comes out differently"
    def trained(**kw): env = feed(n=6, horizon=6); agent = made(env, **kw); return agent,env,agent.learn(env, 100)
    (agent,env,history),(plain,other,_) = trained(**settings),usual(trained)
    assert torch.isfinite(agent.flat).all() and np.isfinite(env.table).all() and all(np.isfinite(history[k]).all() for k in ('returns','level','similarity','diversity','penalty'))
    assert np.isfinite(history['selector_policy_loss']).all()==(agent.settings.select=='learned')
    shapes = agent.flat.shape==plain.flat.shape and agent.selector_flat.shape==plain.selector_flat.shape
    assert settings==dict(batched=False) or not (shapes and same(agent, plain) and (env.table==other.table).all())

_usual = []
def usual(trained):
    "The default, trained once"
    if not _usual: _usual.append(trained())
    return _usual[0]

WRONG = [(dict(select='best'), 'select'), (dict(write_back='on'), 'write_back'), (dict(previous='x'), 'previous'), (dict(token='now'), 'token'), (dict(token='after'), 'batched'), (dict(gain='x'), 'gain'), (dict(eta=0.), 'eta'), (dict(k_sel=0), 'k_sel'),
    (dict(selector_gamma=7.), 'selector_gamma'), (dict(selector_reader='x'), 'selector_reader'), (dict(selector_share=2.), 'selector_share'), (dict(lambda_s=-1.), 'lambda_s'), (dict(user_state=True, bootstrap_truncated=True), 'bootstrap_truncated')]

@pytest.mark.parametrize('settings,word', WRONG, ids=lambda s: str(s))
def test_what_has_no_meaning_is_refused(settings, word):
    env,k = feed(n=2),settings.get('k_sel', 4)
    with pytest.raises(ConfigError, match=word): made(env, k_sel=k, refs=references(env.data.truth, 4), **{a: v for a,v in settings.items() if a!='k_sel'})
