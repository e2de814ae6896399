"The feed against a slow reference in plain Python: exit rules, windows, masks, tokens, seats; the simulated feed; replayed logs"
from functools import cache
from itertools import product
import gymnasium as gym, numpy as np, pandas as pd, pytest
from rlrec.core import ConfigError,stream
from rlrec.data.base import frame
from rlrec.data.catalogue import load
from rlrec.data.feed import FeedDataset
from rlrec.envs.feed import FORCED,MODES,FeedEnv,logged,rule_of,single,vector
from rlrec.envs.simulated_feed import SimulatedFeedEnv

@cache
def made(rule, seed=0, users=12, items=40, tags=4, rows=400, raw=False):
    "A random feed; some items have no tag, some name one twice; the log knows more users and items than the table"
    rng,more = stream(seed, 'feed', rule),(users+5, items+7)
    of = [tuple(f'{t:03d}' for t in rng.integers(tags, size=rng.integers(4))) for _ in range(more[1])]
    table = pd.DataFrame(dict(item_id=range(more[1]), title='', categories=pd.Series(of, dtype=object), year=np.nan, tags=''))
    truth = rng.integers(1, 6, size=(users, items)).astype(np.float32)
    user,item = rng.integers(more[0], size=rows),rng.integers(more[1], size=rows)
    value = rng.integers(1, 6, size=rows) if raw else np.where((user<users)&(item<items), truth[user%users,item%items], 3)
    log = frame(user, item, value, np.arange(rows))
    if raw: log['raw'] = rng.random(rows).astype(np.float32)*7
    far = {} if rule=='tags' else dict(distance=np.sqrt(((truth[:,:,None]-truth[:,None])**2).sum(0)))
    return FeedDataset('made', log, frame(user, item, value, np.arange(rows)), table, pd.DataFrame(dict(user_id=range(more[0]))), (1.,5.), 'x', truth=truth, exit_rule=rule, **far)

def too_much(data, item, before, threshold):
    "The exit rule, word by word"
    if data.exit_rule=='distance': return any(data.distance[item,b]<threshold for b in before)
    tags = data.items.categories
    seen = [t for b in before for t in tags[b]]
    return any(seen.count(t)>threshold for t in tags[item])

class Slow:
    "One user at a time, in plain Python"
    def __init__(self, data, user, mode='NX_0', exit_window=4, exit_threshold=0., horizon=30, window=3, compat_window=False):
        self.data,self.user,self.mode,self.N,self.M,self.window,self.compat = data,user,mode,exit_window,exit_threshold,window,compat_window
        self.horizon,self.items,self.tokens = 10 if mode=='NX_10' else horizon,[],[]
    def obs(self):
        pairs = [(-1,0)]*self.window+[(self.data.truth.shape[1],1)]+list(zip(self.items, self.tokens))
        return np.array(pairs[-self.window:], np.float32)
    def mask(self): return [i not in self.items for i in range(self.data.truth.shape[1])]
    def step(self, item):
        t = len(self.items)
        before = self.items[t-self.N:t] if self.compat else self.items[max(0, t-self.N):t]     # the slip is Python's own: a negative start counts from the end
        left = self.mode!='NX_10' and too_much(self.data, item, before, self.M)
        reward,(low,high) = self.data.truth[self.user,item],(self.data.truth.min(), self.data.truth.max())
        self.items.append(item); self.tokens.append((reward-low)/(high-low))
        return reward,left,t+1>=self.horizon and not left

def random_item(rng, mask): return int(rng.choice(np.flatnonzero(mask)))

CASES = [(rule, mode, N, M, compat) for rule,mode,N in product(('tags','distance'), MODES, (1,2,4,10)) for M in ((0,1,2) if rule=='tags' else (0,4.9,6.)) for compat in (False,True)
         if mode!='NX_10' or (N==4 and not compat)]

@pytest.mark.parametrize('rule,mode,N,M,compat', CASES)
def test_against_the_slow_reference(rule, mode, N, M, compat):
    data,rng = made(rule),stream(N, 'play')
    kw = dict(mode=mode, exit_window=N, exit_threshold=M, horizon=12, compat_window=compat)
    env = FeedEnv(data, 6, **kw); obs,info = env.reset(seed=1)
    slow = [Slow(data, u, **kw) for u in info['user']]
    left = late = 0
    for _ in range(60):
        masks = info.get('action_mask', np.ones((6,40), bool))
        actions = [random_item(rng, m) for m in masks]
        want = [s.step(a) for s,a in zip(slow, actions)]
        obs,reward,terminated,truncated,info = env.step(actions)
        np.testing.assert_array_equal(np.array(want).T, [reward, terminated, truncated])
        for i in np.flatnonzero(terminated | truncated):
            assert info['_final_obs'][i] and info['final_info']['user'][i]==slow[i].user and info['final_info']['turn'][i]==len(slow[i].items)
            np.testing.assert_allclose(info['final_obs'][i], slow[i].obs(), atol=1e-6)
            if truncated[i] and mode!='FB': np.testing.assert_array_equal(info['final_info']['action_mask'][i], slow[i].mask())
            slow[i] = Slow(data, info['user'][i], **kw)
        np.testing.assert_allclose(obs, [s.obs() for s in slow], atol=1e-6)
        np.testing.assert_array_equal(info['turn'], [len(s.items) for s in slow])
        assert ('action_mask' in info)==(mode!='FB')
        if mode!='FB': np.testing.assert_array_equal(info['action_mask'], [s.mask() for s in slow])
        left,late = left+terminated.sum(), late+truncated.sum()
    if mode=='NX_10': assert late==6*(60//10) and not left
    elif rule=='distance' and M==0: assert late==6*(60//12) and not left
    elif N>1 or M==0: assert left>0          # the comparison has met the rule

@pytest.mark.parametrize('tags', [20, 50, 90])
def test_bits_equal_counts(tags):
    "Whether tags fit into 32 bits, 64 bits or none"
    data = made('tags', tags=tags, items=300)
    kind = rule_of(data).code.dtype; assert kind==(np.uint32 if tags<=32 else np.uint64 if tags<=64 else np.int64)
    a,b = FeedEnv(data, 50, exit_threshold=0.),FeedEnv(data, 50, exit_threshold=0.)
    from rlrec.data.feed import tag_slots
    from rlrec.envs.feed import Recent,by_counts
    b._recent = Recent(by_counts(tag_slots(data)[:300], 0), 50, 4)
    a.reset(seed=0); _,info = b.reset(seed=0); rng,ends = stream(0),0
    for _ in range(50):
        act = [random_item(rng, m) for m in info['action_mask']]
        x,(*y,info) = a.step(act),b.step(act)
        for p,q in zip(x[:4], y): np.testing.assert_array_equal(p, q)
        ends += x[2].sum()
    assert ends>0

def play(data, choose, users, steps=None, kind=FeedEnv, **kw):
    "Observations and rewards of one session per user; `choose(info, t)`"
    env = kind(data, num_envs=len(users), autoreset=False, **kw); obs,info = env.reset(seed=0, options=dict(users=users)); seen,paid = [obs],[]
    for t in range(steps or env.horizon):
        obs,reward,terminated,truncated,info = env.step(choose(info, t)); seen.append(obs); paid.append(reward)
        if (terminated | truncated).all(): break
    return np.stack(seen, 1),np.stack(paid, 1)

def anything(info, t): return (stream(t, 'any').random(info['action_mask'].shape)*info['action_mask']).argmax(1)
def oracle(info, t): return np.where(info['action_mask'], info['counterfactual'], -np.inf).argmax(1)
def in_order(order): return lambda info, t: np.full(len(info['user']), order[t])

def test_forced_length():
    env = FeedEnv(made('tags'), 50, mode='NX_10', horizon=3); _,info = env.reset(seed=0)
    for t in range(3*FORCED):
        _,_,terminated,truncated,info = env.step(anything(info, t))
        assert not terminated.any() and truncated.all()==truncated.any()==(t%FORCED==FORCED-1)

def test_a_row_that_ended_earns_nothing_more():
    data = made('tags'); env = FeedEnv(data, 30, autoreset=False); _,info = env.reset(seed=0); over = np.zeros(30, bool)
    for t in range(30):
        _,reward,terminated,truncated,info = env.step(anything(info, t))
        assert (reward[over]==0).all() and (reward[~over]>0).all() and (terminated[over] | truncated[over]).all()
        over = terminated | truncated
        if over.all(): break
    with pytest.raises(ConfigError, match='call reset'): env.step(anything(info, t))

def test_seats():
    data = made('tags'); env = FeedEnv(data, 200, users=[3,5]); _,info = env.reset(seed=0); seen = set(info['user'])
    for t in range(20): *_,info = env.step(anything(info, t)); seen |= set(info['user'])
    assert seen=={3,5}
    _,info = env.reset(options=dict(users=np.arange(200)%12)); np.testing.assert_array_equal(info['user'], np.arange(200)%12)
    _,info = FeedEnv(data, 6000).reset(seed=0)
    np.testing.assert_allclose(np.bincount(info['user'])/6000, 1/12, atol=4*(1/12/6000)**.5)
    for users in ([12], [-1], []):
        with pytest.raises(ConfigError, match='rows of the table, 0 to 11'): FeedEnv(data, users=users)

def test_seeds():
    def walk(env, seed): env.reset(seed=seed); return np.concatenate([env.step(np.full(8, t%40))[4]['user'] for t in range(30)])
    env = FeedEnv(made('tags'), 8, mode='FB'); first = walk(env, 3)
    np.random.seed(0); np.testing.assert_array_equal(walk(env, 3), first)
    assert (walk(env, 4)!=first).any() and (walk(env, None)!=walk(env, None)).any()

def test_errors_name_the_row():
    env = FeedEnv(made('tags'), 3, exit_threshold=9); env.reset(seed=0); env.step([1,2,3])
    with pytest.raises(ConfigError, match='row 1: item 2 was shown before'): env.step([2,2,1])
    with pytest.raises(ConfigError, match='row 2: item 40 does not exist; items are 0 to 39'): env.step([2,3,40])
    with pytest.raises(ConfigError, match='one item for each of 3 rows'): env.step([2,3])
    np.testing.assert_array_equal(env.step([2,3,4])[4]['turn'], [2,2,2])       # what was refused has changed nothing

@pytest.mark.parametrize('mode', MODES)
def test_single_form_equals_one_row(mode):
    kw = dict(dataset=made('tags'), mode=mode, exit_threshold=2); one,vec = single(**kw),vector(1, autoreset=False, **kw); rng = stream(0)
    for seed in range(4):
        a,i = one.reset(seed=seed); b,_ = vec.reset(seed=seed); np.testing.assert_array_equal(a, b[0]); over = False
        while not over:
            act = random_item(rng, i.get('action_mask', np.ones(40, bool)))
            a,r,terminated,truncated,i = one.step(act); x = vec.step([act])
            np.testing.assert_array_equal(a, x[0][0]); assert (r, terminated, truncated)==(x[1][0], x[2][0], x[3][0]); over = terminated or truncated

def test_what_is_returned_is_kept_unless_told_otherwise():
    for copy in (True,False):
        env = FeedEnv(made('tags'), 9, copy=copy); obs,info = env.reset(seed=0); before = [obs.copy(), *(v.copy() for v in info.values())]
        env.step(anything(info, 0)); after = [obs, *info.values()]
        assert all((x==y).all() for x,y in zip(before, after))==copy

def test_the_oracle_is_never_beaten_where_nobody_leaves():
    data,users = made('distance', users=60),np.arange(60)
    total = lambda choose: play(data, choose, users, horizon=12, counterfactual=True)[1].sum(1)
    best = total(oracle); np.testing.assert_array_equal(best, np.sort(data.truth, 1)[:,-12:].sum(1))
    for other in (anything, in_order(np.argsort(-data.truth.mean(0))), in_order(np.arange(40))): assert (total(other)<=best).all()

def test_no_future_in_a_state():
    "The rewards of items not yet shown, and the unbiased log, leave no trace in what is observed"
    data,users,rng = made('tags'),np.arange(12),stream(5)
    order = np.arange(40); kw = dict(exit_threshold=99, horizon=12)
    seen,paid = play(data, in_order(order), users, **kw)
    for t in (0, 3, 8):
        truth = data.truth.copy(); truth[:,t:] = rng.permutation(truth[:,t:], axis=0)
        other,repaid = play(data.replace(truth=truth), in_order(order), users, **kw)
        np.testing.assert_array_equal(seen[:,:t+1], other[:,:t+1]); np.testing.assert_array_equal(paid[:,:t], repaid[:,:t])
        assert (seen[:,t+1:]!=other[:,t+1:]).any()
    test = data.test.assign(item=rng.permutation(data.test['item']), value=data.test.value.to_numpy()[::-1])
    for a,b in zip(play(data, anything, users), play(data.replace(test=test), anything, users)): np.testing.assert_array_equal(a, b)

# the simulated feed

class Pairs:
    "An entropy that is known for every context of one and of two items"
    def __init__(self, items=40, seed=0):
        rng = stream(seed, 'entropy'); self.windows,self.one,self.two = (1,2),rng.random(items),rng.random((items, items))
        self.low,self.high = self.one.min()+self.two.min(),1+1
    def lookup(self, history):
        a,b = history[:,-1],history[:,-2]
        return (self.one[a]+np.where(b<0, 1, self.two[np.minimum(a, b),np.maximum(a, b)])).astype(np.float32)

@pytest.mark.parametrize('mode', MODES)
def test_penalties_against_plain_python(mode):
    data,rng,H = made('tags'),stream(7),Pairs()
    model,unsure = rng.normal(size=(2, 12, 40)).astype(np.float32); unsure = abs(unsure)
    env = SimulatedFeedEnv(data, model, unsure, .3, H, 2., mode=mode, num_envs=6, counterfactual=True)
    low,high = model.min()-.3*unsure.max()+2*H.low,model.max()-.3*unsure.min()+2*H.high
    np.testing.assert_allclose((env.low, env.high), (low, high), rtol=1e-6)
    _,info = env.reset(seed=0); shown = [[] for _ in range(6)]
    for _ in range(60):
        who,masks,told = info['user'],info.get('action_mask', np.ones((6,40), bool)),info['counterfactual']
        act = [random_item(rng, m) for m in masks]
        obs,reward,terminated,truncated,info = env.step(act); seen = info.get('final_obs', obs)
        for i,a in enumerate(act):
            past = shown[i][-1] if shown[i] else None
            h = H.one[a]+(1 if past is None else H.two[min(a, past),max(a, past)])
            want = model[who[i],a]-.3*unsure[who[i],a]+2*h-low
            assert reward[i]==pytest.approx(want, abs=1e-5)==pytest.approx(told[i,a], abs=1e-5) and seen[i,-1,1]==pytest.approx(min(1, want/(high-low)), abs=1e-5)
            shown[i] = [] if terminated[i] or truncated[i] else [*shown[i], a]
        assert (reward>=-1e-5).all() and (reward<=high-low+1e-5).all()

@pytest.mark.parametrize('mode', MODES)
def test_a_perfect_model_is_the_feed_but_for_the_shift(mode):
    data = made('tags'); a,b = FeedEnv(data, 20, mode=mode),SimulatedFeedEnv(data, data.truth, mode=mode, num_envs=20)
    a.reset(seed=2); b.reset(seed=2); rng = stream(0); info = {}
    for _ in range(40):
        masks = info.get('action_mask', np.ones((20,40), bool)); act = [random_item(rng, m) for m in masks] if mode=='FB' or info else np.arange(20)
        x,y = a.step(act),b.step(act); info = x[4]
        np.testing.assert_allclose(x[1]-1, y[1]); np.testing.assert_array_equal(x[0][...,0], y[0][...,0]); np.testing.assert_allclose(x[0][...,1], y[0][...,1])
        for p,q in zip(x[2:4], y[2:4]): np.testing.assert_array_equal(p, q)

def test_bounds_of_other_tables_may_let_rewards_fall_below_0():
    data = made('tags'); env = SimulatedFeedEnv(data, data.truth-1, np.zeros_like(data.truth), .5, bounds=(data.truth, None), num_envs=30)
    assert env.low==1 and env.high==5 and env.table.min()==-1
    obs,_ = env.reset(seed=0); assert env.observation_space.contains(obs) and (env.step(data.truth[env._who].argmin(1))[1]==-1).all()

def test_the_fitted_entropy_fits_in():
    "A log's own entropy as penalty: never below 0, and what plain Python adds up"
    from rlrec.tools.entropy import Entropy
    data = made('tags', items=12, rows=3000); H = Entropy(windows=(1,2)).fit(data)
    env = SimulatedFeedEnv(data, data.truth, entropy=H, lambda_entropy=3., num_envs=20, exit_threshold=1, counterfactual=True, horizon=10)
    _,info = env.reset(seed=0); last = np.full(20, -1); different = set()
    for t in range(40):
        act,who,told = stream(t, 'e').integers(12, size=20),info['user'],info['counterfactual']
        _,reward,terminated,truncated,info = env.step(act)
        h = H.lookup(np.stack([last, act], 1)); different |= set(h.round(4).tolist())
        np.testing.assert_allclose(reward, data.truth[who,act]+3*h-(1+3*H.low), atol=1e-5); np.testing.assert_allclose(reward, told[np.arange(20),act], atol=1e-5)
        assert (reward>-1e-5).all(); last = np.where(terminated | truncated, -1, act)
    assert len(different)>20

def test_the_maker_fits_a_model_of_its_own():
    from rlrec.tools.world_model import WorldModel
    data,small = made('tags'),dict(members=1, epochs=1, hidden=(8,), negatives=1); kw = dict(dataset=data, model=small, lambda_uncertainty=.5)
    mean,variance = WorldModel(**small).fit(data, 3).matrices()
    env = gym.make_vec('rlrec/SimulatedFeed-v0', num_envs=4, seed=3, **kw); np.testing.assert_array_equal(env.reward, mean); np.testing.assert_array_equal(env.uncertainty, variance)
    np.testing.assert_allclose(env.table, mean-.5*variance-(mean.min()-.5*variance.max()), atol=1e-6)
    assert (gym.make_vec('rlrec/SimulatedFeed-v0', num_envs=4, seed=4, **kw).reward!=mean).any()
    brought = gym.make_vec('rlrec/SimulatedFeed-v0', num_envs=4, dataset=data, reward=data.truth); np.testing.assert_array_equal(brought.table, data.truth-1)

# replayed logs

def slow_log(data, N, M, window, horizon):
    "Sessions of a log, row by row"
    low,high,I = data.truth.min(),data.truth.max(),data.truth.shape[1]
    rows,episode = [],-1
    for user in range(data.n_users):
        session = None
        for r in data.train[(data.train.user==user)].itertuples():
            if r.item>=I: continue
            if session is None: session,episode = [],episode+1
            token = min(1, max(0, ((r.raw if 'raw' in data.train else r.value)-low)/(high-low)))
            see = lambda s: ([(-1,0)]*window+[(I,1)]+s)[-window:]
            end = too_much(data, r.item, [i for i,_ in session][max(0, len(session)-N):], M) or len(session)+1==horizon
            rows.append((see(session), r.item, r.value, see([*session, (r.item,token)]), end, episode))
            session = None if end else [*session, (r.item,token)]
    return dict(zip(('obs','action','reward','next_obs','end','episode'), map(np.array, zip(*rows))))

@pytest.mark.parametrize('rule,N,M,window,horizon,raw', [('tags',1,0,3,None,False), ('tags',4,0,3,30,True), ('tags',4,1,2,None,False), ('tags',10,2,5,6,False),
                                                         ('distance',1,0,3,None,False), ('distance',4,4.9,3,None,True), ('distance',2,6.,1,4,False)])
def test_logged_against_the_slow_reference(rule, N, M, window, horizon, raw):
    data = made(rule, raw=raw); got,want = logged(data, N, M, window, horizon),slow_log(data, N, M, window, horizon)
    assert list(got)==['obs','action','reward','next_obs','end','episode'] and got['obs'].dtype==got['reward'].dtype==np.float32
    for k in got: np.testing.assert_allclose(got[k], want[k], atol=1e-6, err_msg=k)
    assert got['end'].any()==(M>0 or rule=='tags' or horizon is not None)
    last = np.append(got['episode'][1:]!=got['episode'][:-1], True); assert (last[got['end']]).all()

def test_logged_is_what_the_environment_shows():
    "A log whose labels are the table's: every session played again gives the same observations, rewards and ends"
    data = made('tags'); log = data.train[(data.train.user<12)&(data.train['item']<40)]; data = data.replace(train=log.reset_index(drop=True))
    l = logged(data, 2, 0., horizon=30); users = np.sort(log.user.to_numpy())
    for e in range(l['episode'].max()+1):
        at = np.flatnonzero(l['episode']==e); env = FeedEnv(data, 1, mode='FB', exit_window=2, autoreset=False); obs,_ = env.reset(options=dict(users=users[at[:1]]))
        for k in at:
            np.testing.assert_allclose(obs[0], l['obs'][k], atol=1e-6)
            obs,reward,terminated,truncated,_ = env.step(l['action'][k:k+1])
            assert reward[0]==l['reward'][k] and (terminated | truncated)[0]==l['end'][k]; np.testing.assert_allclose(obs[0], l['next_obs'][k], atol=1e-6)

def test_an_empty_log():
    data = made('tags'); got = logged(data.replace(train=data.train.iloc[:0])); assert {len(v) for v in got.values()}=={0} and got['obs'].shape==(0,3,2)

# real Coat: four policies whose results are known

@pytest.fixture
def coat(real_data): real_data('coat'); return load('coat')

def mean_rating(data):
    n = np.bincount(data.train['item'], minlength=data.n_items)
    return np.bincount(data.train['item'], data.train.value, data.n_items)/np.maximum(n, 1)

@pytest.mark.parametrize('policy,want', [('popularity', 78.40), ('fixed', 84.11), ('oracle', 88.15)])
def test_anchors_on_coat(coat, policy, want):
    "Every user once, mode NX_0"
    ranked = lambda score: in_order(np.argsort(-score, kind='stable'))
    choose = dict(popularity=ranked(mean_rating(coat)), fixed=ranked(coat.truth.mean(0, dtype=np.float64)), oracle=oracle)[policy]
    paid = play(coat, choose, np.arange(290), counterfactual=policy=='oracle')[1]
    assert paid.shape==(290,30) and paid.sum(1, dtype=np.float64).mean()==pytest.approx(want, abs=.005)

def test_chance_on_coat(coat):
    "30 times the table's mean, 67.01; a random policy lies within four of its standard errors"
    expected = 30*coat.truth.mean(dtype=np.float64); assert expected==pytest.approx(67.01, abs=.005)
    rng = stream(0, 'chance'); total = play(coat, lambda info,t: (rng.random((290,300))*info['action_mask']).argmax(1), np.arange(290))[1].sum(1, dtype=np.float64)
    apart = total-30*coat.truth.mean(1)                              # users differ, and all are here: only the choice of items is chance
    assert abs(apart.mean())<4*apart.std()/290**.5 and apart.std()/290**.5<.3
