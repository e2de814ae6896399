"What every policy promises, and what every learner must be able to learn. A new one joins by a line in `POLICIES` or `LEARNERS`"
import json
import numpy as np, pytest
from gymnasium.vector import AutoresetMode
from rlrec.core import ConfigError,DataError,stream
from rlrec.agents.a2c import A2C,gae
from rlrec.agents.base import Policy,mask_of
from rlrec.agents.dqn import DQN
from rlrec.agents.linear import LinearPG,LinearQL
from rlrec.agents.offline import OFFLINE
from rlrec.agents.policies import UCB,Constant,EpsilonGreedy,Heuristic,Oracle,Table,Uniform
from rlrec.agents.ppo import PPO
from rlrec.agents.tasks import BestArm,Corridor,FeedTask,IdentityTask,exact_q
from rlrec.agents.tracked import TrackedA2C,draw,minibatches
from rlrec.agents.trackers import REWARD_HANDLES,TRACKERS,make_tracker

A,WIDTH,N = 4,6,200     # actions, features and rows of the fixed batch below

def weighted(agent):
    "A linear agent with weights that are not zero"
    agent.set_arrays(dict(W=stream(0, 'test-agents', 'weights').standard_normal(agent.W.shape)))
    return agent

# name -> policy over A actions and WIDTH features
POLICIES = {
    'constant': lambda: Constant(2, 'always-2', n_actions=A),
    'random': lambda: Uniform(A),
    'random-pair': lambda: Uniform(A, actions=[0,2]),
    'heuristic': lambda: Heuristic(n_actions=A),
    'oracle': lambda: Oracle(),
    'oracle-pair': lambda: Oracle([0,2]),
    'dqn': lambda: DQN(WIDTH, A, seed=3, hidden=(16,)),
    'a2c': lambda: A2C(WIDTH, A, seed=3, hidden=(16,)),
    'a2c-separate': lambda: A2C(WIDTH, A, seed=3, hidden=(16,), trunk='separate', activation='relu'),
    'ppo': lambda: PPO(WIDTH, A, seed=3, hidden=(16,)),
    'linear-pg': lambda: weighted(LinearPG(WIDTH, A, seed=3)),
    'linear-ql': lambda: weighted(LinearQL(WIDTH, A, seed=3, eps=.2)),
    'table': lambda: Table(np.array([1,3,3,2.])),
    'epsilon-greedy': lambda: EpsilonGreedy(np.array([1,3,3,2.])),
    'ucb': lambda: UCB(np.array([1,3,3,2.])),
    **{name: lambda kind=kind: kind(WIDTH, A, seed=3, hidden=(16,)) for name,kind in OFFLINE.items()},
}

# name -> learner for an environment, with settings that solve the small tasks below within a few seconds; keyword arguments override them
LEARNERS = {
    'dqn': lambda env, seed=0, **kw: DQN(env.single_observation_space, env.single_action_space, seed=seed,
                                         **dict(hidden=(32,), lr=2e-3, gamma=.9, warmup=200, target_every=200, batch=32) | kw),
    'a2c': lambda env, seed=0, **kw: A2C(env.single_observation_space, env.single_action_space, seed=seed,
                                         **dict(hidden=(32,), lr=1e-2, gamma=.9, n_steps=5, gae_lambda=.95) | kw),
    'ppo': lambda env, seed=0, **kw: PPO(env.single_observation_space, env.single_action_space, seed=seed,
                                         **dict(hidden=(32,), lr=1e-2, gamma=.9, n_steps=8, epochs=2, minibatch=32) | kw),
}
# the same for bandit learners, which see one reward at a time and need not solve the corridor
LINEAR = {
    'linear-pg': lambda env, seed=0, **kw: LinearPG(env.single_observation_space, env.single_action_space, seed=seed, **dict(lr=2.) | kw),
    'linear-ql': lambda env, seed=0, **kw: LinearQL(env.single_observation_space, env.single_action_space, seed=seed, **dict(lr=.5, eps=.2) | kw),
}
# policies that draw from `probs` only when they are not asked for their best action
SOFT = ['linear-pg', 'a2c', 'ppo', 'crr']
# policies that change with every action taken, until they are seeded again
COUNTING = ['ucb']
# learners whose values `q` are those of the best policy, to be held against the exact ones
VALUES = ['dqn']
# settings for the corridor, where an agent must look around for longer
CORRIDOR = {'dqn': dict(eps_share=1., eps_end=.2)}
# settings for noisy arms, which want smaller steps
ARMS = {'dqn': dict(lr=1e-3), 'a2c': {}, 'ppo': {}, 'linear-pg': dict(lr=.1), 'linear-ql': dict(lr=.02, eps=1.)}

def batch(masked):
    "Observations and everything that any policy reads from `info`; action 2 or 0 is always allowed, as the fixed rules need"
    rng = stream(0, 'test-agents')
    obs,info = rng.standard_normal((N, WIDTH)).astype(np.float32),dict(rating_count=rng.integers(0, 10, N), counterfactual=rng.integers(0, 2, (N, A)).astype(np.float32))
    if masked:
        info['action_mask'] = rng.random((N, A))<.5
        info['action_mask'][:,[0,1,2]] = True
    return obs,info

@pytest.fixture(params=POLICIES)
def policy(request): return POLICIES[request.param]()

@pytest.fixture(params=LEARNERS | LINEAR)
def learner(request): return (LEARNERS | LINEAR)[request.param]

@pytest.mark.parametrize('masked', [False, True])
def test_probs_are_probabilities(policy, masked):
    obs,info = batch(masked)
    p = policy.probs(obs, info)
    assert p.shape==(N, A) and (p>=0).all() and np.allclose(p.sum(1), 1)
    if masked: assert (p[~mask_of(info)]==0).all()

@pytest.mark.parametrize('masked', [False, True])
def test_act_agrees_with_probs(policy, masked):
    "Every action taken has a positive probability, and over many draws its share is that probability"
    obs,info = batch(masked)
    def draw():
        if policy.name in COUNTING: policy.seed(0)
        return policy.act(obs, info, greedy=policy.name not in SOFT)
    p,draws = policy.probs(obs, info),np.stack([draw() for _ in range(400)])
    assert draws.dtype==np.int64 and draws.shape==(400, N)
    share = (draws[:,:,None]==np.arange(A)).mean(0)
    assert (share[p==0]==0).all()
    assert np.abs(share-p).max() < 5*.5/400**.5

def test_masked_actions_are_never_chosen(policy):
    obs,info = batch(True)
    for greedy in (True, False):
        for _ in range(50): assert mask_of(info)[np.arange(N), policy.act(obs, info, greedy=greedy)].all()

def test_a_row_without_any_action_is_an_error(policy):
    obs,info = batch(True)
    info['action_mask'][7] = False
    with pytest.raises(ConfigError, match='row 7'): policy.act(obs, info)

def test_the_seed_repeats_the_draws(policy):
    obs,info = batch(False)
    def draws(seed): policy.seed(seed); return np.stack([policy.act(obs, info, greedy=False) for _ in range(3)])
    assert (draws(4)==draws(4)).all()

def test_saved_and_loaded_policies_act_alike(policy, tmp_path):
    obs,info = batch(True)
    policy.save(tmp_path/'p')
    twin = type(policy).load(tmp_path/'p')
    assert twin.name==policy.name and np.array_equal(twin.probs(obs, info), policy.probs(obs, info))
    for p in (policy, twin): p.seed(1)
    assert np.array_equal(twin.act(obs, info, greedy=False), policy.act(obs, info, greedy=False))
    assert {f.suffix for f in (tmp_path/'p').iterdir()} <= {'.json', '.safetensors'}

def test_saving_twice_gives_the_same_bytes(policy, tmp_path):
    for folder in ('a', 'b'): policy.save(tmp_path/folder)
    a,b = ({f.name: f.read_bytes() for f in (tmp_path/d).iterdir()} for d in ('a', 'b'))
    assert a==b

def test_inputs_are_left_alone(policy):
    obs,info = batch(True)
    before = obs.copy(),{k: v.copy() for k,v in info.items()}
    policy.act(obs, info); policy.probs(obs, info)
    assert np.array_equal(obs, before[0]) and all(np.array_equal(info[k], before[1][k]) for k in info)

def test_a_folder_of_another_class_is_refused(policy, tmp_path):
    class Stranger(Policy): pass
    policy.save(tmp_path)
    with pytest.raises(DataError, match=f'holds a policy of class {type(policy).__name__}, not Stranger'): Stranger.load(tmp_path)

@pytest.mark.parametrize('damage,message', [(lambda f: f.unlink(), 'missing'), (lambda f: f.write_bytes(f.read_bytes()[:-8]), 'damaged'), (lambda f: f.write_bytes(b''), 'damaged')])
def test_damaged_weights_are_one_line(damage, message, tmp_path):
    POLICIES['dqn']().save(tmp_path)
    damage(next(tmp_path.glob('*.safetensors')))
    with pytest.raises(DataError, match=message) as e: DQN.load(tmp_path)
    assert '\n' not in str(e.value) and str(tmp_path) in str(e.value)

def test_damaged_descriptions_are_one_line(tmp_path):
    POLICIES['dqn']().save(tmp_path)
    file = tmp_path/'policy.json'; good = json.loads(file.read_text())
    for text in ('', '[]', '{"kind": "DQN"}', json.dumps(good)[:-5], '\0'):
        file.write_text(text)
        with pytest.raises(DataError, match='not the description of a policy') as e: DQN.load(tmp_path)
        assert '\n' not in str(e.value)
    file.write_text(json.dumps(good | dict(config=good['config'] | dict(hidden=[7]))))
    with pytest.raises(DataError, match='do not fit') as e: DQN.load(tmp_path)
    assert '\n' not in str(e.value)

def test_a_failed_save_leaves_the_old_policy(tmp_path, monkeypatch):
    "Killed between the two files: the folder still holds the policy of before"
    old,new = (DQN(WIDTH, A, seed=s, hidden=(16,)) for s in (0, 1))
    old.save(tmp_path)
    monkeypatch.setattr('json.dumps', lambda *a, **kw: 1/0)
    with pytest.raises(ZeroDivisionError): new.save(tmp_path)
    monkeypatch.undo()
    obs,_ = batch(False)
    assert np.array_equal(DQN.load(tmp_path).q(obs), old.q(obs))
    new.save(tmp_path)
    assert np.array_equal(DQN.load(tmp_path).q(obs), new.q(obs)) and len(list(tmp_path.iterdir()))==2

# ---- learners

@pytest.mark.parametrize('seed', [0, 1])
def test_identity_task_is_learned(learner, seed):
    env = IdentityTask()
    agent = learner(env, seed)
    agent.learn(env, 3000)
    assert (agent.act(np.eye(4), {})==np.arange(4)).all()

@pytest.mark.parametrize('name', LEARNERS | LINEAR)
def test_best_arm_is_found(name):
    env = BestArm()
    agent = (LEARNERS | LINEAR)[name](env, **ARMS[name])
    agent.learn(env, 3000)
    assert (agent.act(np.ones((5,1)), {})==2).all()

@pytest.mark.parametrize('name', LEARNERS | LINEAR)
def test_forbidden_arms_are_never_pulled_and_the_best_of_the_others_is(name):
    "The environment raises an error if a forbidden arm is pulled"
    env = BestArm(forbid=True)
    agent = (LEARNERS | LINEAR)[name](env, **ARMS[name])
    agent.learn(env, 3000)
    mask = ~np.eye(3, dtype=bool)
    assert (agent.act(np.ones((3,1)), {'action_mask': mask})==[2,2,1]).all()

@pytest.mark.parametrize('name', LEARNERS)
def test_the_better_end_of_the_corridor_is_reached(name):
    "Far from the exits it takes bootstrapping, over terminated and truncated ends, to know which one is better"
    env = Corridor()
    agent,exact = LEARNERS[name](env, **CORRIDOR.get(name, {})),exact_q(env, .9, 100)[-1]
    agent.learn(env, 5000)
    assert (agent.act(np.eye(7), {})==exact.argmax(1)).all()
    if name in VALUES: assert np.abs(agent.q(np.eye(7))-exact).max() < .05

def train(learner, seed, steps=800, **kw):
    env = IdentityTask()
    agent = learner(env, seed)
    return agent,agent.learn(env, steps, **kw)

def same(a, b): return a.keys()==b.keys() and all(np.array_equal(a[k], b[k], equal_nan=np.asarray(a[k]).dtype.kind=='f') for k in a)

def test_same_seed_same_weights_and_history(learner):
    (a,ha),(b,hb),(c,_) = (train(learner, s) for s in (5, 5, 6))
    assert same(a.arrays(), b.arrays()) and same(ha, hb)
    assert not same(a.arrays(), c.arrays())

def test_numbers_drawn_elsewhere_change_nothing(learner):
    "Neither the global generators nor evaluations in between reach the training"
    import torch
    a,_ = train(learner, 5)
    np.random.seed(1); torch.manual_seed(1)
    def on_eval(step, agent): agent.seed(9); agent.act(np.eye(4), {}, greedy=False); return step
    b,h = train(learner, 5, on_eval=on_eval, eval_every=200)
    assert same(a.arrays(), b.arrays())
    assert h['eval']==[200,400,600,800]==h['eval_step'].tolist()

def test_evaluation_comes_once_at_the_end_if_no_period_is_given(learner):
    _,h = train(learner, 0, steps=400, on_eval=lambda step,agent: 'done')
    assert h['eval']==['done'] and h['eval_step'].tolist()==[400]

def test_trained_agents_survive_storage(learner, tmp_path):
    agent,_ = train(learner, 2)
    agent.save(tmp_path)
    twin = type(agent).load(tmp_path)
    assert np.array_equal(twin.act(np.eye(4), {}), agent.act(np.eye(4), {})) and np.array_equal(twin.probs(np.eye(4), {}), agent.probs(np.eye(4), {}))

def test_learning_can_go_on(learner):
    env = IdentityTask()
    agent = learner(env)
    first = agent.learn(env, 400); before = agent.arrays(); second = agent.learn(env, 400)
    assert not same(before, agent.arrays()) and not np.array_equal(first['returns'], second['returns'])

def test_history_counts_every_episode(learner):
    _,h = train(learner, 0, steps=800)                     # 8 rows, episodes of 10 steps
    assert len(h['returns'])==80 and h['return_step'].tolist()==np.repeat(np.arange(80, 801, 80), 8).tolist()
    assert (h['returns']>=0).all() and (h['returns']<=10).all()

class Reused(IdentityTask):
    "Overwrites the observation that it has handed out"
    def out(self, obs): self.buffer[:] = obs; return self.buffer
    def reset(self, **kw): self.buffer = np.zeros((self.num_envs, 4), np.float32); obs,info = super().reset(**kw); return self.out(obs),info
    def step(self, actions): obs,*rest = super().step(actions); return self.out(obs),*rest

def test_environments_may_reuse_their_observation_array(learner):
    def run(env): agent = learner(env); agent.learn(env, 800); return agent.arrays()
    assert same(run(Reused()), run(IdentityTask()))

class NextStep(IdentityTask): metadata = {'autoreset_mode': AutoresetMode.NEXT_STEP}

def test_unfit_environments_are_refused(learner):
    agent = learner(IdentityTask())
    with pytest.raises(ConfigError, match='SAME_STEP'): agent.learn(NextStep(), 100)
    with pytest.raises(ConfigError, match='4 features and 4 actions'): agent.learn(Corridor(), 100)
    with pytest.raises(ConfigError, match='steps'): agent.learn(IdentityTask(), 0)

def test_misspelled_settings_are_refused(learner):
    with pytest.raises(ConfigError, match="did you mean 'lr'"): learner(IdentityTask(), lrr=.9)

# ---- DQN alone

@pytest.mark.parametrize('choice', [dict(double=True), dict(loss='mse'), dict(tau=.05)], ids=str)
def test_variants_learn_too(choice, tmp_path):
    env = IdentityTask()
    agent = LEARNERS['dqn'](env, **choice)
    agent.learn(env, 2000)
    assert (agent.act(np.eye(4), {})==np.arange(4)).all()
    agent.save(tmp_path)
    assert all(getattr(DQN.load(tmp_path).settings, k)==v for k,v in choice.items())

def test_the_loss_is_the_one_that_was_chosen():
    "Values of zero and rewards of 3 and .5 at the end: errors of 3 and .5"
    import torch
    b = dict(obs=torch.ones(2, 1), next_obs=torch.ones(2, 1), reward=torch.tensor([3.,.5]), end=torch.ones(2, dtype=bool), action=torch.tensor([0,1]))
    for loss,expected in (('huber', (2.5+.125)/2), ('mse', (9+.25)/2)):
        agent = DQN(1, 2, hidden=(), loss=loss)
        agent.set_arrays({k: 0*v for k,v in agent.arrays().items()})
        assert agent.update(b).item()==expected

def targets(**kw):
    env = IdentityTask()
    agent = LEARNERS['dqn'](env, **kw); agent.learn(env, 320)
    return agent.arrays(),{k: v.numpy() for k,v in agent.target.state_dict().items()}

def test_a_soft_target_that_goes_all_the_way_is_a_copy_after_every_vector_step():
    (soft,soft_target),(hard,hard_target) = targets(tau=1.),targets(tau=0., target_every=8)
    assert same(soft, hard) and same(soft_target, hard_target) and same(soft, soft_target)

def test_a_soft_target_needs_no_copies():
    (a,a_target),(b,b_target),(c,_) = targets(tau=.1),targets(tau=.1, target_every=1),targets()
    assert same(a, b) and same(a_target, b_target) and not same(a, a_target) and not same(a, c)

@pytest.mark.parametrize('settings,message', [(dict(loss='hubert'), "unknown loss 'hubert': did you mean 'huber'"), (dict(tau=-.1), 'tau must lie'), (dict(tau=1.1), 'tau must lie')])
def test_losses_and_shares_without_meaning_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message): DQN(1, 2, **settings)

def test_rows_need_not_divide_the_steps():
    env = IdentityTask(num_envs=7)
    h = LEARNERS['dqn'](env, warmup=10, buffer=50).learn(env, 100)
    assert h['step'][-1]==105 and h['return_step'][-1]==70

def test_updates_are_one_per_interaction_after_the_warm_up(monkeypatch):
    env,count = IdentityTask(),[]
    update = DQN.update
    monkeypatch.setattr(DQN, 'update', lambda self, b: (count.append(len(b['obs'])), update(self, b))[1])
    LEARNERS['dqn'](env, warmup=200).learn(env, 800)
    assert count==[32]*(800-200+8)

@pytest.mark.parametrize('every,steps', [(32, 1001), (3, 100), (1000, 500)])
def test_updates_can_be_rarer_than_interactions(every, steps, monkeypatch):
    "Seven rows divide nothing; the remainder is carried over"
    count,update = [],DQN.update
    monkeypatch.setattr(DQN, 'update', lambda self, b: (count.append(1), update(self, b))[1])
    LEARNERS['dqn'](IdentityTask(num_envs=7), warmup=0, train_every=every).learn(IdentityTask(num_envs=7), steps)
    assert len(count)==-(-steps//7)*7//every

@pytest.mark.parametrize('kw', [{}, dict(double=True), dict(loss='mse')], ids=str)
def test_without_a_future_the_discount_makes_no_difference(kw):
    "Every pull of an arm is the last one, so the network that values what follows is not missed"
    def weights(gamma): agent = LEARNERS['dqn'](BestArm(forbid=True), gamma=gamma, **kw); agent.learn(BestArm(forbid=True), 480); return agent.arrays()
    assert same(weights(0.), weights(.98))

# ---- actor and critic

ACTORS = ['a2c', 'ppo']

@pytest.mark.parametrize('name', ACTORS)
@pytest.mark.parametrize('trunk', ['shared', 'separate'])
def test_a_bandit_needs_one_pass_and_one_update_per_vector_step(name, trunk, monkeypatch):
    kind,count = type(POLICIES[name]()),dict(heads=0, update=0, ask=0)
    for f in count: monkeypatch.setattr(kind, f, lambda self, *a, f=f, old=getattr(kind, f), **kw: (count.update({f: count[f]+1}), old(self, *a, **kw))[1])
    env = BestArm(num_envs=32)
    kind(1, 3, hidden=(8,), trunk=trunk).learn(env, 320)
    assert count==dict(heads=10, update=10, ask=0)

@pytest.mark.parametrize('lam', [1., .9])
def test_advantages_are_those_of_stable_baselines(lam):
    "Its buffer, filled with the same rollout; a truncated row has its last value in the reward there"
    torch,buffers = pytest.importorskip('torch'),pytest.importorskip('stable_baselines3.common.buffers')
    import gymnasium as gym
    rng,T,n,gamma = stream(0, 'gae'),12,5,.97
    reward,value,follow = rng.standard_normal((3,T,n)).astype(np.float32)
    over = rng.random((T,n))<.2; cut = over & (rng.random((T,n))<.5); last = rng.standard_normal(n).astype(np.float32)
    buffer = buffers.RolloutBuffer(T, gym.spaces.Box(0, 1, (1,)), gym.spaces.Discrete(2), gae_lambda=lam, gamma=gamma, n_envs=n)
    for t in range(T):
        start = over[t-1] if t else np.ones(n, bool)
        buffer.add(np.zeros((n,1)), np.zeros((n,1)), reward[t]+gamma*follow[t]*cut[t], start, torch.tensor(value[t]), torch.zeros(n))
    buffer.compute_returns_and_advantage(torch.tensor(last), over[-1])
    nxt = np.where(cut, follow, np.vstack([value[1:], last]))
    assert np.allclose(gae(reward, value, nxt, over & ~cut, cut, gamma, lam), buffer.advantages, atol=1e-5)

@pytest.mark.parametrize('name', ACTORS)
def test_a_cut_without_the_last_state_is_an_error(name):
    class Silent(IdentityTask):
        def step(self, actions): *out,info = super().step(actions); return *out,{}
    with pytest.raises(ConfigError, match='final_obs'): LEARNERS[name](Silent()).learn(Silent(), 800)
    LEARNERS[name](Silent(), bootstrap_truncated=False).learn(Silent(), 800)

def test_the_last_rollout_may_be_shorter():
    h = LEARNERS['a2c'](IdentityTask(num_envs=7), n_steps=10).learn(IdentityTask(num_envs=7), 100)
    assert h['step'].tolist()==[70, 105]

@pytest.mark.parametrize('name', ACTORS)
def test_a_bonus_keeps_the_policy_undecided(name):
    def entropy(bonus): return LEARNERS[name](IdentityTask(), entropy_bonus=bonus).learn(IdentityTask(), 2000)['entropy'][-1]
    assert entropy(0.) < .5 < 1.2 < entropy(2.) <= np.log(4)+1e-6

@pytest.mark.parametrize('settings,message', [(dict(trunk='split'), "unknown trunk 'split'"), (dict(activation='thanh'), "did you mean 'tanh'"), (dict(gae_lambda=2), 'gae_lambda must lie'), (dict(n_steps=0), 'n_steps must be above 0')])
@pytest.mark.parametrize('kind', [A2C, PPO])
def test_actors_refuse_settings_without_meaning(kind, settings, message):
    with pytest.raises(ConfigError, match=message): kind(1, 2, **settings)

def test_the_module_leaves_the_number_of_threads_alone():
    from pathlib import Path
    import rlrec.agents
    assert not any('set_num_threads' in f.read_text() for f in Path(rlrec.agents.__path__[0]).glob('*.py'))

# ---- agents that read sessions: observations are windows of tokens

I,W = 5,3     # items and tokens of the batch below

# learning rates of the trackers that want smaller steps
SMALL = dict(attention=3e-3, caser=5e-3, nextitnet=3e-3)
# name -> agent over I items and windows of W tokens, with settings that solve the feed task within a second or two; keyword arguments override them
READERS = {name: lambda seed=3, name=name, **kw: TrackedA2C(2*W, I, seed=seed, **dict(tracker=name, embedding=16, lr=SMALL.get(name, 1e-2), gae_lambda=.9, entropy_bonus=.1) | kw) for name in TRACKERS}

def windows(masked, n=N):
    "Windows of all lengths, the start token among them, and what may be shown; items 0, 1 and 2 always may"
    rng = stream(0, 'test-windows')
    obs = np.stack([rng.integers(I, size=(n,W)), rng.random((n,W))], 2).astype(np.float32)
    for i,length in enumerate(rng.integers(W+1, size=n)):
        if length<W: obs[i,:W-length-1],obs[i,W-length-1] = (-1,0),(I,1)
    mask = rng.random((n,I))<.5; mask[:,:3] = True
    return obs,dict(action_mask=mask) if masked else {}

@pytest.fixture(params=READERS)
def reader(request): return READERS[request.param]

def rehearsed(reader, seed=3, steps=500, env=None, **kw):
    agent = reader(seed, **kw)
    return agent,agent.learn(env or FeedTask(), steps)

@pytest.mark.parametrize('masked', [False, True])
def test_readers_give_probabilities_and_draw_from_them(reader, masked):
    (obs,info),agent = windows(masked),rehearsed(reader)[0]
    p,draws = agent.probs(obs, info),np.stack([agent.act(obs, info, greedy=False) for _ in range(400)])
    assert p.shape==(N, I) and (p>=0).all() and np.allclose(p.sum(1), 1) and draws.dtype==np.int64
    share = (draws[:,:,None]==np.arange(I)).mean(0)
    assert np.abs(share-p).max() < 5*.5/400**.5 and (agent.act(obs, info)==p.argmax(1)).all()
    if masked: assert (p[~info['action_mask']]==0).all() and (share[~info['action_mask']]==0).all()

def test_readers_draw_the_same_for_the_same_seed_and_leave_inputs_alone(reader):
    (obs,info),agent = windows(True),reader()
    before = obs.copy(),info['action_mask'].copy()
    def draws(seed): agent.seed(seed); return np.stack([agent.act(obs, info, greedy=False) for _ in range(3)])
    assert (draws(4)==draws(4)).all() and not (draws(4)==draws(5)).all()
    agent.probs(obs, info)
    assert np.array_equal(obs, before[0]) and np.array_equal(info['action_mask'], before[1])
    info['action_mask'][7] = False
    for greedy in (True, False):
        with pytest.raises(ConfigError, match='row 7'): agent.act(obs, info, greedy=greedy)

@pytest.mark.parametrize('handle', REWARD_HANDLES)
def test_readers_survive_storage(reader, handle, tmp_path):
    "The weights carry the embeddings; nothing else is needed"
    given = stream(0, 'given').standard_normal((I,6)).astype(np.float32)
    (obs,info),agent = windows(True),rehearsed(reader, embeddings=given, reward_handle=handle)[0]
    agent.save(tmp_path); twin = TrackedA2C.load(tmp_path)
    assert np.array_equal(twin.probs(obs, info), agent.probs(obs, info)) and same(twin.arrays(), agent.arrays())
    assert {f.suffix for f in tmp_path.iterdir()}=={'.json', '.safetensors'}
    with pytest.raises(DataError, match='not A2C'): A2C.load(tmp_path)

@pytest.mark.parametrize('no_repeat', [False, True])
def test_the_best_sequence_is_found(reader, no_repeat):
    env = FeedTask(num_envs=32, no_repeat=no_repeat)
    agent,_ = rehearsed(reader, steps=16_000, env=env)
    obs,info = env.reset()
    for item in env.best_sequence()[0]:
        assert (agent.act(obs, info)==item).all()
        obs,*_,info = env.step(np.full(32, item))

def test_readers_repeat_themselves_and_nothing_drawn_elsewhere_matters(reader):
    import torch
    (a,ha),(b,_) = rehearsed(reader, 5),rehearsed(reader, 6)
    np.random.seed(1); torch.manual_seed(1)
    def on_eval(step, agent): agent.seed(9); agent.act(*windows(True), greedy=False); return step
    c = reader(5); hc = c.learn(FeedTask(), 500, on_eval=on_eval, eval_every=100)
    assert same(a.arrays(), c.arrays()) and not same(a.arrays(), b.arrays()) and all(np.array_equal(ha[k], hc[k]) for k in ha if not k.startswith('eval'))
    assert hc['eval']==[128,224,320,416,512]==hc['eval_step'].tolist()             # 32 interactions at a time

def test_readers_can_go_on(reader):
    agent,first = rehearsed(reader); before = agent.arrays(); second = agent.learn(FeedTask(), 500)
    assert not same(before, agent.arrays()) and not np.array_equal(first['returns'], second['returns']) and agent.steps==1024

def test_one_evaluation_at_the_end_if_no_period_is_given(reader):
    h = reader().learn(FeedTask(), 70, on_eval=lambda step,agent: 'done')
    assert h['eval']==['done'] and h['eval_step'].tolist()==[96] and len(h['returns'])==24

class ReusedFeed(FeedTask):
    "Overwrites the observation, the rewards and the mask that it has handed out"
    def out(self, name, value): kept = self.__dict__.setdefault('kept_'+name, value.copy()); kept[:] = value; return kept
    def reset(self, **kw): obs,info = super().reset(**kw); return self.out('obs', obs),{k: self.out(k, v) for k,v in info.items()}
    def step(self, actions):
        obs,reward,*ends,info = super().step(actions)
        return self.out('obs', obs),self.out('reward', reward),*ends,info | {k: self.out(k, info[k]) for k in info if k=='action_mask'}

@pytest.mark.parametrize('no_repeat', [False, True])
def test_feeds_may_reuse_their_arrays(reader, no_repeat):
    def weights(kind): return rehearsed(reader, env=kind(no_repeat=no_repeat))[0].arrays()
    assert same(weights(ReusedFeed), weights(FeedTask))

class NextStepFeed(FeedTask): metadata = {'autoreset_mode': AutoresetMode.NEXT_STEP}

def test_unfit_feeds_are_refused(reader):
    with pytest.raises(ConfigError, match='SAME_STEP'): reader().learn(NextStepFeed(), 100)
    with pytest.raises(ConfigError, match='6 features and 5 actions'): reader().learn(FeedTask(n_items=6), 100)
    with pytest.raises(ConfigError, match='6 features and 5 actions'): reader().learn(FeedTask(window=2), 100)
    with pytest.raises(ConfigError, match='steps'): reader().learn(FeedTask(), 0)
    with pytest.raises(ConfigError, match="did you mean 'lr'"): reader(lrr=1)

def test_the_first_weights_depend_on_the_seed_alone():
    "Whatever reward an agent is trained on, and for however long, it begins at the same point"
    a,b,c = READERS['gru'](7),TrackedA2C(FeedTask(2).single_observation_space, I, seed=7, tracker='gru', embedding=16, gamma=.5),READERS['gru'](8)
    assert same(a.arrays(), b.arrays()) and not same(a.arrays(), c.arrays())

def test_all_parameters_move_in_one_update(reader):
    "Embeddings of items that were seen, the start token, the tracker and both heads"
    agent = reader(); before = agent.arrays(); agent.learn(FeedTask(num_envs=64), 1)
    assert all((v!=agent.arrays()[k]).any() for k,v in before.items())
    assert (before['both.0.items']!=agent.arrays()['both.0.items']).any(1).all()

class LeavingFeed(FeedTask):
    "Item 0 ends the session"
    def move(self, actions): reward,_ = super().move(actions); return reward,actions==0

def test_only_the_first_episode_of_each_row_counts(monkeypatch):
    "Rows that are over are not learned from again, or counted: as many first states, and at most as many exits, as there are rows"
    seen = []
    improve = TrackedA2C.improve
    monkeypatch.setattr(TrackedA2C, 'improve', lambda self, b, rng: (seen.append(b), improve(self, b, rng))[1])
    h = READERS['average']().learn(LeavingFeed(num_envs=50, horizon=8), 1)
    starts = (seen[0]['obs'].numpy().reshape(-1,W,2)[:,-1,0]==I).sum()
    assert starts==50 and len(seen[0]['action'])==h['return_step'][0] and len(set(h['return_step']))==1 and len(h['returns'])==50
    assert (seen[0]['action']==0).sum()<=50 and h['return_step'][0]<50*8

@pytest.mark.parametrize('cut', [False, True])
def test_truncation_is_an_end_unless_it_is_told_otherwise(cut):
    agent,env = READERS['average'](gae_lambda=1., bootstrap_truncated=cut, gamma=.9),FeedTask(num_envs=6, horizon=2)
    r = agent.collect(env, *env.reset(seed=0), stream(0, 'x'))
    b,rest = agent.prepare(r),agent.values(r.steps[-1]['next_obs']) if cut else np.zeros(6)
    last = r['reward'][1]+.9*rest
    assert np.allclose(b['target'].numpy(), np.concatenate([r['reward'][0]+.9*last, last]), atol=1e-6)

def test_the_update_asks_the_networks_once_per_interaction(monkeypatch):
    "One pass to act and one to learn; nothing is valued again"
    rows,heads = [],TrackedA2C.heads
    monkeypatch.setattr(TrackedA2C, 'heads', lambda self, x, mask=None: (rows.append(len(x)), heads(self, x, mask))[1])
    monkeypatch.setattr(TrackedA2C, 'sampled_probs', lambda self, b: np.ones((1,1)))
    monkeypatch.setattr(TrackedA2C, 'ask', None)
    READERS['average'](minibatch=100).learn(FeedTask(num_envs=64, horizon=4), 1)
    assert rows==[64]*4+[100,156]

def test_forbidden_items_are_never_drawn_even_from_extreme_logits():
    import torch
    rng = stream(0, 'extreme')
    for scale in (0., 1e-30, 1., 88., 1e30):
        logits,mask = torch.from_numpy((scale*rng.standard_normal((300,500))).astype(np.float32)),rng.random((300,500))<.05
        mask[:,0] |= ~mask.any(1); logits = logits.masked_fill(torch.from_numpy(~mask), -torch.inf)
        for u in (np.zeros(300), np.full(300, np.nextafter(np.float32(1), np.float32(0))), np.ones(300), rng.random(300)):
            assert mask[np.arange(300),draw(logits, u.astype(np.float32))].all()

@pytest.mark.parametrize('name', TRACKERS)
@pytest.mark.parametrize('handle', REWARD_HANDLES)
@pytest.mark.parametrize('window', [1, 2, 5])
def test_empty_places_change_nothing(name, handle, window):
    "A longer window with empty places in front, whatever stands there, gives what the short one gives"
    import torch
    if name=='caser': window = max(window, 4)                         # a shorter one lacks the tall filters
    short,long = (make_tracker(name, I, w, width=6, reward_handle=handle) for w in (window, window+3))
    weights = {k: v for k,v in long.state_dict().items() if k in short.state_dict()}
    if name=='caser': weights['down.weight'] = weights['down.weight'][:,-window:]      # one weight per age
    short.load_state_dict(weights)
    x = torch.from_numpy(np.stack([stream(1, 'w').integers(I+1, size=(20,window)), stream(2, 'w').random((20,window))], 2).astype(np.float32))
    for filler in (0., 7.):
        padded = torch.cat([torch.tensor([-1.,filler]).expand(20,3,2), x], 1)
        assert torch.allclose(short(x), long(padded), atol=1e-5)
