"Agents that learn from a log, and policies that are tables: what the notebooks do not show"
import numpy as np, pytest, torch
from rlrec.core import ConfigError,DataError,stream
from rlrec.agents.base import mask_of
from rlrec.agents.offline import BCQ,CQL,CRR,OFFLINE,PARTS,SQN,n_step,record
from rlrec.agents.policies import UCB,EpsilonGreedy,Table,Uniform
from rlrec.agents.tasks import FeedTask

I,GAMMA = 4,.9
# settings that solve the small feed within a second or two
EASY = dict(sqn={}, bcq=dict(threshold=.3), cql=dict(conservative=.1, quantiles=5), crr=dict(conservative=0., beta=.5))
QUICK = dict(embeddings=np.eye(I), hidden=(64,), n_steps=1, lr=3e-3, batch=256, target_every=50)

def feed(**kw): return FeedTask(num_envs=64, n_items=I, **kw)
def make(name, seed=0, window=3, **kw): return OFFLINE[name](2*window, I, seed=seed, **QUICK | EASY[name] | kw)
def small(name, seed=0, **kw): return OFFLINE[name](6, I, seed=seed, **dict(batch=32, target_every=8, hidden=(8,)) | kw)

@pytest.fixture(scope='module')
def log(): return record(feed(), Uniform(I), 200)

@pytest.fixture(params=OFFLINE)
def name(request): return request.param

def play(agent, task, greedy=True):
    (obs,info),out = task.reset(seed=0),[]
    for _ in range(task.horizon):
        action = agent.act(obs, info, greedy=greedy)
        obs,*_,info = task.step(action)
        out.append(action)
    return np.stack(out, 1)

def same(a, b): return a.keys()==b.keys() and all(np.array_equal(a[k], b[k]) for k in a)

# ---- the log

def walk(reward, end, episode, n, gamma):
    "The same, one step at a time"
    out = []
    for t in range(len(reward)):
        total,m = 0.,0
        while True:
            total += gamma**m*reward[t+m]; m += 1
            if m==n or end[t+m-1] or t+m==len(reward) or episode[t+m]!=episode[t]: break
        out.append((total, t+m-1, 0. if end[t+m-1] else gamma**m))
    return [np.array(x) for x in zip(*out)]

@pytest.mark.parametrize('n', [1, 2, 3, 7, 50])
def test_returns_are_those_of_a_walk(n):
    rng = stream(0, 'n-step')
    episode = np.repeat(np.arange(60), rng.integers(1, 9, 60))
    last = np.r_[episode[1:]!=episode[:-1], True]
    end = last & (rng.random(len(episode))<.6)
    reward = rng.standard_normal(len(episode))
    for ours,theirs in zip(n_step(reward, end, episode, n, GAMMA), walk(reward, end, episode, n, GAMMA)): assert np.allclose(ours, theirs, atol=1e-5)

def test_returns_leave_their_inputs_alone():
    reward,end,episode = np.ones(3),np.zeros(3, bool),np.zeros(3, int)
    n_step(reward, end, episode, 3, .5)
    assert (reward==1).all() and not end.any() and not episode.any()

def test_a_recorded_log_is_what_happened(log):
    "Rewards follow from the table of the task, episodes from the ends, and a second recording is the same"
    table = feed().rewards
    assert np.array_equal(log['reward'], table[log['obs'][:,-1,0].astype(int),log['action']])
    inside = log['episode'][1:]==log['episode'][:-1]
    assert np.array_equal(log['next_obs'][:-1][inside], log['obs'][1:][inside]) and np.array_equal(log['end'][:-1], ~inside)
    assert same(record(feed(), Uniform(I), 200), log) and not same(record(feed(), Uniform(I), 200, seed=1), log)

def test_an_unfinished_episode_has_no_end():
    log = record(feed(), Uniform(I), 6)
    assert np.bincount(log['episode']).tolist()==[4,2]*64 and log['end'].tolist()==([False]*3+[True]+[False]*2)*64

@pytest.mark.parametrize('key', PARTS)
def test_a_log_without_a_part_is_refused(key, log, name):
    with pytest.raises(ConfigError, match=f"no '{key}'"): small(name).learn_offline({k: v for k,v in log.items() if k!=key}, 10)

@pytest.mark.parametrize('key', [k for k in PARTS if k!='obs'])
def test_a_part_of_another_length_is_refused(key, log):
    with pytest.raises(ConfigError, match=f"'{key}' has shape"): small('sqn').learn_offline(log | {key: log[key][1:]}, 10)

@pytest.mark.parametrize('change,message', [
    (lambda l: dict(action=l['action']+1), "'action' holds item 4; they go from 0 to 3"),
    (lambda l: dict(action=l['action']-1), "'action' holds item -1"),
    (lambda l: dict(obs=l['obs']+1), "'obs' holds item 5; they go from -1 to 4"),
    (lambda l: dict(next_obs=l['next_obs']-1), "'next_obs' holds item -2"),
    (lambda l: dict(reward=np.where(l['reward']>0, np.nan, 0)), "'reward' holds values that are not finite"),
    (lambda l: dict(obs=l['obs'][:,1:]), "'obs' has shape"),
    (lambda l: dict(obs=l['obs'].reshape(-1, 6)), "'obs' has shape"),
    (lambda l: dict(end=l['end'].astype(float)), "'end' must be of type bool"),
    (lambda l: dict(episode=l['episode'][np.r_[1:len(l['episode']),0]]), "'episode' comes back"),
    (lambda l: {k: v[:0] for k,v in l.items()}, "'obs' has no rows")])
def test_logs_without_meaning_are_refused(change, message, log):
    with pytest.raises(ConfigError, match=message): small('bcq').learn_offline(log | change(log), 10)

# ---- learning

@pytest.mark.parametrize('seed', [0, 1])
def test_the_best_session_is_recovered_from_random_ones(name, seed, log):
    agent,task = make(name, seed),feed()
    agent.learn_offline(log, 800)
    assert (play(agent, task)==task.best_sequence()[0]).all()

@pytest.mark.parametrize('name,kw', [('sqn', dict(supervised=0., penalty=0.)), ('bcq', dict(threshold=0.)), ('cql', dict(conservative=0.))])
def test_without_caution_values_are_exact(name, kw):
    "A session that never ends, seen one item deep; the fixed point by value iteration"
    rng = stream(1, 'values')
    R,shown,exact = rng.random((I,I)).astype(np.float32),rng.integers(I, size=3001),np.zeros((I,I))
    for _ in range(100): exact = R+.7*exact.max(1)
    tokens = np.stack([shown, np.ones(3001)], 1).astype(np.float32)[:,None]
    agent = make(name, window=1, **dict(hidden=(), gamma=.7, lr=.02, target_every=25) | kw)
    agent.learn_offline(dict(obs=tokens[:-1], action=shown[1:], reward=R[shown[:-1],shown[1:]], next_obs=tokens[1:], end=np.zeros(3000, bool), episode=np.zeros(3000, int)), 700)
    q = agent.q(np.stack([np.arange(I), np.ones(I)], 1)[:,None])
    assert np.abs(q-exact).max()<.03

def test_sqn_can_act_by_its_predictions(log):
    "A log in which one item follows another is repeated"
    newest = {k: log[k][:,-1:] for k in ('obs','next_obs')}
    after = ((newest['obs'][:,0,0]+1)%I).astype(int)
    agent = make('sqn', window=1, acts_by='logits')
    agent.learn_offline(log | newest | dict(action=after), 300)
    assert np.array_equal(agent.act(newest['obs'], {}), after)

def test_bcq_stays_with_what_the_log_shows():
    "Item 3 pays most but is shown once in a hundred; with a threshold it is left alone, without one it is taken"
    rng,n = stream(0, 'bcq'),4000
    action = np.where(rng.random(n)<.01, 3, rng.integers(3, size=n))
    obs = np.tile(np.float32([[I,1]]), (n,1,1))
    log = dict(obs=obs, action=action, reward=np.array([.1,.2,.5,1])[action], next_obs=obs, end=np.ones(n, bool), episode=np.arange(n))
    for threshold,best in ((.3,2), (0.,3)):
        agent = make('bcq', window=1, threshold=threshold)
        agent.learn_offline(log, 400)
        assert agent.act(obs[:1], {})==[best]

def test_caution_presses_down_what_was_not_done():
    "Items 2 and 3 never appear; the heavier the weight, the lower their values beside the others'"
    rng,n = stream(0, 'cql'),2000
    action = rng.integers(2, size=n); obs = np.tile(np.float32([[I,1]]), (n,1,1))
    log = dict(obs=obs, action=action, reward=np.ones(n), next_obs=obs, end=np.ones(n, bool), episode=np.arange(n))
    def gap(name, w): a = make(name, window=1, conservative=w); a.learn_offline(log, 300); q = a.q(obs[:1])[0]; return q[:2].mean()-q[2:].mean()
    for name in ('cql', 'crr'): assert gap(name, 10.)>gap(name, .1)>gap(name, 0.)

# ---- targets

def by_hand(agent, log):
    "Targets of all rows, from the target network's plain outputs"
    s = agent.settings
    reward,last,factor = walk(log['reward'], log['end'], log['episode'], s.n_steps, s.gamma)
    with torch.no_grad(): out = agent.target(agent.states(log['next_obs'])[last]).double()
    if agent.name=='cql':
        z = out.view(len(out), I, -1); value = z[torch.arange(len(z)),z.mean(2).argmax(1)]
    else:
        q,p = out[:,:I],out[:,I:].softmax(1)
        if agent.name=='bcq': q = torch.where(p/p.amax(1, keepdim=True)>s.threshold, q, -torch.inf)
        value = ((p*q).sum(1) if agent.name=='crr' else q.amax(1))[:,None]
    return reward[:,None]+factor[:,None]*value.numpy()

@pytest.mark.parametrize('n_steps', [1, 3])
def test_targets_are_those_of_the_formulas(name, n_steps, log):
    log = {k: v[:300] for k,v in log.items()}
    agent = small(name, n_steps=n_steps)
    agent.learn_offline(log, 8)
    y = agent.targets(agent.prepare(log), torch.arange(300), chunk=70).numpy()
    assert np.allclose(y, by_hand(agent, log), atol=1e-5)

def test_batches_carry_the_targets_of_the_present_round(name, log):
    "Over two renewals of the target network, the second in another training; random reward tokens make every state tell its row"
    log = {k: v[:300].copy() for k,v in log.items()}
    log['obs'][:,-1,1] = stream(0, 'tokens').random(300)
    agent,renewed = small(name),[]
    d,rng = agent.prepare(log),stream(0, 'batches')
    for n in (5, 15):
        for b in agent.batches(d, n, rng):
            rows = (d['state']==b['state'][:,None]).all(2).nonzero()[:,1]
            assert torch.equal(d['action'][rows], b['action']) and torch.allclose(agent.targets(d, rows), b['target'], atol=1e-6)
            before = agent.target[-1].bias.clone()
            agent.update(b)
            if not torch.equal(before, agent.target[-1].bias): renewed.append(agent.steps)
    assert renewed==[8,16]

# ---- masks

def masks(n):
    out = stream(0, 'masks').random((n,I))<.5
    out[np.arange(n),stream(1, 'masks').integers(I, size=n)] = True
    return out

def test_forbidden_items_are_never_taken(name, log):
    agent,obs = small(name),log['obs'][:2000]
    info = dict(action_mask=masks(2000))
    for greedy in (True, False): assert info['action_mask'][np.arange(2000),agent.act(obs, info, greedy=greedy)].all()
    assert (agent.probs(obs, info)[~mask_of(info)]==0).all() and np.allclose(agent.probs(obs, info).sum(1), 1)

def test_masked_choices_are_the_best_of_what_is_left(name, log):
    "By a plain loop over rows, the threshold of BCQ among allowed items only"
    agent = small(name); agent.learn_offline(log, 20)
    obs,mask = log['obs'][:300],masks(300)
    q = agent.q(obs) if name!='crr' else agent.logits(obs)
    for i,a in enumerate(agent.act(obs, dict(action_mask=mask))):
        left = np.flatnonzero(mask[i])
        if name=='bcq': p = np.exp(agent.logits(obs[i:i+1])[0,left]); left = left[p/p.max()>agent.settings.threshold]
        assert a==left[q[i,left].argmax()]

def test_nothing_is_shown_twice(name, log):
    agent = small(name); agent.learn_offline(log, 10)
    for greedy in (True, False): assert (np.sort(play(agent, feed(no_repeat=True), greedy), 1)==np.arange(I)).all()

# ---- reliability

def test_same_seed_same_weights(name, log):
    def run(seed): a = small(name, seed); h = a.learn_offline(log, 30); return a.arrays(),h
    (a,ha),(b,hb),(c,_) = run(3),run(3),run(4)
    assert same(a, b) and np.array_equal(ha['loss'], hb['loss']) and not same(a, c)

def test_numbers_drawn_elsewhere_change_nothing(name, log):
    def on_eval(update, agent): np.random.seed(1); torch.manual_seed(1); agent.seed(3); agent.act(log['obs'][:5], {}, greedy=False); return update
    a,b = small(name),small(name)
    a.learn_offline(log, 30); h = b.learn_offline(log, 30, on_eval=on_eval, eval_every=10)
    assert same(a.arrays(), b.arrays()) and h['eval']==[10,20,30]==h['eval_step'].tolist()

def test_only_the_networks_are_trained_and_the_log_is_left_alone(name, log):
    agent,before = small(name),{k: v.copy() for k,v in log.items()}
    first = agent.arrays(); agent.learn_offline(log, 10); then = agent.arrays()
    assert all(np.array_equal(first[k], then[k]) == k.startswith('tracker') for k in first) and same(log, before)

def test_a_log_may_be_read_only(name, log):
    frozen = {k: v.copy() for k,v in log.items()}
    for v in frozen.values(): v.setflags(write=False)
    a,b = small(name),small(name)
    a.learn_offline(frozen, 10); b.learn_offline(log, 10)
    assert same(a.arrays(), b.arrays())

def test_stored_agents_act_alike(name, log, tmp_path):
    agent = make(name); agent.learn_offline(log, 30); agent.save(tmp_path)
    twin,obs,info = type(agent).load(tmp_path),log['obs'][:500],dict(action_mask=masks(500))
    assert np.array_equal(twin.probs(obs, info), agent.probs(obs, info)) and same(twin.arrays(), agent.arrays())
    for p in (agent, twin): p.seed(1)
    assert np.array_equal(twin.act(obs, info, greedy=False), agent.act(obs, info, greedy=False))

def test_learning_can_go_on(name, log):
    agent = small(name)
    agent.learn_offline(log, 10); before = agent.arrays(); h = agent.learn_offline(log, 10)
    assert agent.steps==20 and h['step'].tolist()==list(range(1, 11)) and not same(before, agent.arrays())

@pytest.mark.parametrize('kind,settings,message', [
    (SQN, dict(lr=0), 'lr must be above 0'), (SQN, dict(gamma=1.1), 'gamma must lie between'), (SQN, dict(n_steps=0), 'n_steps must be above 0'), (SQN, dict(penalty=-1), 'penalty must be 0 or more'),
    (SQN, dict(acts_by='head'), "unknown acts_by 'head'"), (BCQ, dict(threshold=1.), 'threshold must be below 1'), (BCQ, dict(acts_by='q'), "unknown setting of BCQ 'acts_by'"),
    (CQL, dict(quantiles=0), 'quantiles must be above 0'), (CQL, dict(conservative=-1), 'conservative must be 0 or more'), (CRR, dict(beta=0), 'beta must be above 0'), (CRR, dict(bets=1), "did you mean 'beta'")])
def test_settings_without_meaning_are_refused(kind, settings, message):
    with pytest.raises(ConfigError, match=message): kind(6, I, **settings)

def test_embeddings_of_another_feed_are_refused(name):
    with pytest.raises(ConfigError, match='embeddings must have shape'): OFFLINE[name](6, I, embeddings=np.eye(I+1))

def test_published_settings_are_the_defaults():
    s = {name: kind(6, I).settings for name,kind in OFFLINE.items()}
    assert all((v.lr, v.gamma, v.batch, v.target_every)==(1e-3, .9, 1024, 320) for v in s.values())
    assert [s[n].n_steps for n in ('sqn','bcq','cql','crr')]==[3,3,3,1] and s['bcq'].threshold==.6 and s['sqn'].penalty==s['bcq'].penalty==.01
    assert (s['cql'].quantiles, s['cql'].conservative, s['crr'].beta, s['crr'].cap, s['crr'].conservative)==(20, 10, 1, 20, 10)

# ---- tables

def test_a_table_serves_each_user_by_their_row():
    table = stream(0, 'table').random((30,9)); user = stream(1, 'table').integers(30, size=200)
    mask = stream(2, 'table').random((200,9))<.5; mask[:,4] = True
    a = Table(table).act(np.zeros((200,1)), dict(user=user, action_mask=mask))
    assert a.tolist()==[max(np.flatnonzero(m), key=lambda i: np.float32(table[u,i])) for u,m in zip(user, mask)]

@pytest.mark.parametrize('rows', [1, 7])
def test_ucb_counts_as_a_plain_loop_does(rows):
    rng,table = stream(0, 'ucb'),stream(1, 'ucb').random((20,6)).astype(np.float32)
    policy,counts = UCB(table),[1]*6
    for _ in range(60):
        user,mask = rng.integers(20, size=rows),rng.random((rows,6))<.6
        mask[:,rng.integers(6)] = True
        bonus = [(2*np.log(sum(counts))/c)**.5 for c in counts]
        want = [max(np.flatnonzero(m), key=lambda i: table[u,i]+bonus[i]) for u,m in zip(user, mask)]
        got = policy.act(np.zeros((rows,1)), dict(user=user, action_mask=mask))
        assert got.tolist()==want
        for a in want: counts[a] += 1
    assert policy.counts.tolist()==counts
    policy.seed(0); assert policy.counts.tolist()==[1]*6

def test_a_stored_ucb_goes_on_counting(tmp_path):
    a = UCB(np.linspace(0, 1, 6)); obs = np.zeros((3,1))
    for _ in range(20): a.act(obs, {})
    a.save(tmp_path); b = UCB.load(tmp_path)
    assert all(np.array_equal(a.act(obs, {}), b.act(obs, {})) for _ in range(20)) and np.array_equal(a.counts, b.counts)

@pytest.mark.parametrize('kind', [Table, EpsilonGreedy, UCB])
def test_tables_without_meaning_are_refused(kind):
    for shape in ((), (0,), (2,2,2)):
        with pytest.raises(ConfigError, match='a table is'): kind(np.zeros(shape))
    policy = kind(np.zeros((3,I)))
    with pytest.raises(ConfigError, match='no row for user -1'): policy.act(np.zeros((1,1)), dict(user=np.array([-1])))
    with pytest.raises(DataError, match='no array "table"'): policy.set_arrays({})
