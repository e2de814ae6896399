"Trainings that were killed go on from their checkpoint to the same bytes as those that nobody disturbed"
import os,random,signal,subprocess,sys
from functools import cache
from pathlib import Path
from unittest.mock import patch
import gymnasium as gym, numpy as np, pytest
from rlrec.core import ConfigError,DataError,stream
from rlrec.agents import checkpoints
from rlrec.agents.a2c import A2C
from rlrec.agents.checkpoints import Checkpoint
from rlrec.agents.dqn import DQN
from rlrec.agents.linear import LinearPG,LinearQL
from rlrec.agents.offline import OFFLINE,record
from rlrec.agents.policies import Uniform
from rlrec.agents.ppo import PPO
from rlrec.agents.tasks import BestArm,Corridor,FeedTask
from rlrec.agents.tracked import TrackedA2C
from rlrec.analyses import cold_start
from rlrec.analyses.feed import Judge,Study,fitted
from rlrec.analyses.policy_entropy import evaluation_set,make_agent,problem,watch
from rlrec.analyses.rows import Rows
from rlrec.data.catalogue import load
from rlrec.envs.bandits import BanditEnv
from rlrec.envs.cold_start import ColdStartEnv,cold_start_world
from rlrec.envs.feed import FeedEnv
from rlrec.tools.world_model import WorldModel

class Killed(Exception): pass

def world(**kw): return cold_start_world(encoder='tfidf-svd', **kw)      # remembered by the process
@cache
def coat(): return load('synthetic-coat', size=.3)
@cache
def log(): return record(FeedTask(), Uniform(5), 60)
def sessions(**kw): return ColdStartEnv(world(), 5, horizon=4, copy=False, **kw)
def music(n=7): return BanditEnv(problem('synthetic-music'), n)
def clicks(): return BanditEnv(problem('ads', 'bernoulli'), 6, counterfactual=True)     # rewards are drawn, too

SMALL = dict(hidden=(8,), warmup=20, batch=16)
ONLINE = {  # name -> agent, its environment, settings
    'dqn': (DQN, sessions, SMALL), 'dqn-full-memory': (DQN, sessions, SMALL | dict(buffer=60, train_every=7, target_every=30)), 'dqn-bandit': (DQN, lambda: music(2), SMALL | dict(gamma=0., train_every=2)),
    'dqn-tau': (DQN, lambda: sessions(stop_when_exhausted=True, reward='hits'), SMALL | dict(tau=.1, double=True)), 'dqn-masks': (DQN, lambda: BestArm(forbid=True), SMALL | dict(train_every=4)), 'dqn-corridor': (DQN, Corridor, SMALL | dict(train_every=4)),
    'a2c': (A2C, music, {}), 'a2c-rollouts': (A2C, sessions, dict(n_steps=3, trunk='separate')), 'ppo': (PPO, sessions, dict(n_steps=4, epochs=2, minibatch=8)), 'ppo-bandit': (PPO, clicks, {}),
    'linear-pg': (LinearPG, music, {}), 'linear-ql': (LinearQL, music, dict(eps=.2)), 'tracked': (TrackedA2C, FeedTask, dict(embedding=8, tracker='attention'))}

LONG = {'a2c': 1500, 'dqn-bandit': 1500}     # some losses wait for the next point of the curve

def new(name):
    kind,make,settings = ONLINE[name]; env = make()
    return kind(env.single_observation_space, env.single_action_space, seed=3, **settings),env

def said(step, agent): return dict(step=step, own=agent.rng.random(), shares=np.arange(3)/step, pair=(np.float32(step), None))
def learned(agent, env, checkpoint=None, steps=300): return agent.learn(env, steps, said, 50, checkpoint)
def dies(thing, name, n):
    "The `n`-th call of a method is the last one of the process"
    calls,method = iter(range(1, n)),getattr(thing, name)
    def once(*args, **kw):
        if next(calls, None) is None: raise Killed
        return method(*args, **kw)
    setattr(thing, name, once)

def same(a, b):
    "Equal values of equal types, all the way down"
    assert type(a) is type(b)
    if isinstance(a, dict): assert a.keys()==b.keys(); [same(a[k], b[k]) for k in a]
    elif isinstance(a, (list, tuple)): assert len(a)==len(b); [same(x, y) for x,y in zip(a, b)]
    elif isinstance(a, np.ndarray): assert a.dtype==b.dtype; np.testing.assert_array_equal(a, b)
    else: assert a==b or a!=a and b!=b

@pytest.mark.parametrize('name', ONLINE)
def test_a_killed_training_goes_on_to_the_same_bytes(name, tmp_path):
    "Killed twice, each time somewhere else; at the end even what is learned afterwards is the same"
    steps,at = LONG.get(name, 300),random.Random(name)
    whole,env = new(name); h = learned(whole, env, None, steps)
    for _ in range(2):
        agent,env2 = new(name); dies(env2, 'step', at.randint(2, 30))
        try: learned(agent, env2, Checkpoint(tmp_path, every=0), steps)
        except Killed: pass
    agent,env2 = new(name); g = learned(agent, env2, tmp_path, steps)
    same(g, h); same(agent.arrays(), whole.arrays())
    assert agent.rng.random()==whole.rng.random() and env.np_random.random()==env2.np_random.random() and agent.steps==whole.steps
    same(agent.learn(env2, 100), whole.learn(env, 100)); same(agent.arrays(), whole.arrays())

@pytest.mark.parametrize('name', OFFLINE)
def test_a_killed_training_on_a_log_goes_on(name, tmp_path):
    def some(checkpoint=None, n=None):
        agent = OFFLINE[name](6, 5, seed=2, target_every=7)
        if n: dies(agent, 'update', n)
        return agent,agent.learn_offline(log(), 60, said, 20, checkpoint)
    whole,h = some()
    for n in (10, 30):
        with pytest.raises(Killed): some(Checkpoint(tmp_path, every=0), n)
    agent,g = some(tmp_path)
    same(g, h); same(agent.arrays(), whole.arrays())
    same(agent.learn_offline(log(), 20), whole.learn_offline(log(), 20)); same(agent.arrays(), whole.arrays())

def test_a_killed_world_model_goes_on(tmp_path):
    def fit(checkpoint=None, n=None, **kw):
        model = WorldModel(**dict(members=2, hidden=(8,), epochs=4, negatives=1) | kw)
        if n: dies(model, 'epoch', n)
        return model.fit(coat(), 1, lambda epoch,m: dict(epoch=epoch, mean=m.matrices()[0].mean()), checkpoint)
    whole = fit()
    for n in (4, 4):
        with pytest.raises(Killed): fit(Checkpoint(tmp_path, every=0), n)
    part,again = (fit(Checkpoint(tmp_path), n) for n in (None, 1))
    for m in (part, again): same(m.matrices(), whole.matrices()); same((m.told, m.losses), (whole.told, whole.losses))
    with pytest.raises(DataError, match='other settings'): fit(Checkpoint(tmp_path), lr=.1)

@pytest.mark.parametrize('name', ['dqn', 'a2c', 'linear-pg', 'tracked'])
def test_a_finished_training_is_not_repeated(name, tmp_path):
    (a,e),(b,f) = new(name),new(name)
    h = learned(a, e, tmp_path)
    size = sum(p.stat().st_size for p in tmp_path.iterdir())
    dies(f, 'step', 1); same(learned(b, f, tmp_path), h); same(a.arrays(), b.arrays())
    assert size < 1_000_000         # its memory is not kept

def test_checkpoints_wait_for_their_time(tmp_path):
    agent,env = new('a2c'); dies(env, 'step', 40)
    with pytest.raises(Killed): learned(agent, env, tmp_path)
    assert not list(tmp_path.iterdir())

@pytest.mark.parametrize('change', [dict(seed=4), dict(steps=400), dict(every=60), dict(kind=PPO), dict(n=8), dict(lr=.1)], ids=str)
def test_another_training_is_refused(change, tmp_path):
    def some(kind=A2C, n=7, seed=3, steps=100, every=50, **kw): env = music(n); return kind(env.single_observation_space, env.single_action_space, seed=seed, **kw).learn(env, steps, said, every, tmp_path)
    some()
    with pytest.raises(DataError, match='other settings; give another folder') as e: some(**change)
    assert '\n' not in str(e.value)

def test_what_cannot_be_stored_is_refused(tmp_path):
    agent,env = new('a2c')
    with pytest.raises(ConfigError, match=r'eval\[0\] is a Rows, .*on_eval returns'): agent.learn(env, 100, lambda step,a: Rows('a', 'b', 0), 50, Checkpoint(tmp_path, every=0))

def test_an_environment_that_cannot_be_stopped_is_refused(tmp_path):
    env = FeedEnv(coat(), 4)
    for agent in (DQN(env.single_observation_space, env.single_action_space), A2C(env.single_observation_space, env.single_action_space)):
        with pytest.raises(ConfigError, match='FeedEnv cannot be stopped in the middle'): agent.learn(env, 100, checkpoint=tmp_path)
    agent,env = new('a2c')
    with pytest.raises(ConfigError, match='VectorWrapper cannot be stopped'): agent.learn(gym.vector.VectorWrapper(env), 100, checkpoint=tmp_path)

@pytest.mark.parametrize('make', [sessions, lambda: sessions(counterfactual=True, stop_when_exhausted=True), lambda: sessions(update_history=False, consume_hits=False, exclude_shown=False), music, clicks, Corridor, FeedTask])
def test_an_environment_goes_on_from_its_state(make):
    a,b = make(),make(); rng = stream(0, 'test-resume')
    actions = rng.integers(2, size=(31, a.num_envs))
    a.reset(seed=1); b.reset(seed=2)
    for i,now in enumerate(actions[:20]):
        a.step(now)
        if i%5: continue
        b.set_state_arrays(a.state_arrays()); b.np_random.bit_generator.state = a.np_random.bit_generator.state
    b.set_state_arrays(a.state_arrays()); b.np_random.bit_generator.state = a.np_random.bit_generator.state
    for now in actions[20:]: same(a.step(now), b.step(now))

def test_the_state_of_another_environment_is_refused():
    env,other = sessions(),ColdStartEnv(world(), 6, horizon=4)
    env.reset(seed=0); other.reset(seed=0)
    with pytest.raises(DataError, match='other settings'): other.set_state_arrays(env.state_arrays())
    with pytest.raises(DataError, match='consists of contexts, obs'): music().set_state_arrays(env.state_arrays())

@pytest.mark.parametrize('damage', [lambda d: next(d.glob('weights*')).unlink(), lambda d: next(d.glob('weights*')).write_bytes(b''), lambda d: (d/'policy.json').write_text('{'),
    lambda d: (lambda f: f.write_bytes(f.read_bytes()[:-1]+b'?'))(next(d.glob('weights*'))), lambda d: (d/'policy.json').write_text('{}')], ids=['missing', 'empty', 'cut', 'one-byte', 'other-json'])
def test_a_damaged_checkpoint_is_one_line(damage, tmp_path):
    learned(*new('a2c'), tmp_path); damage(tmp_path)
    with pytest.raises(DataError) as e: learned(*new('a2c'), tmp_path)
    assert '\n' not in str(e.value) and str(tmp_path) in str(e.value)

@pytest.mark.parametrize('moment', range(4))
def test_a_checkpoint_is_never_read_half_written(moment, tmp_path):
    "The process ends at each of the moments between two changes of the folder; the old state, or the new one, is there"
    c = Checkpoint(tmp_path); c.write({}, dict(step=1, w=np.zeros(100)))
    calls = iter(range(moment))
    def until(real):
        def call(*args, **kw):
            if next(calls, None) is None: raise Killed
            return real(*args, **kw)
        return call
    with patch.object(os, 'replace', until(os.replace)), patch.object(Path, 'write_bytes', until(Path.write_bytes)), patch.object(Path, 'unlink', lambda self, **kw: None), pytest.raises(Killed) if moment<3 else patch.dict(os.environ):
        c.write({}, dict(step=2, w=np.ones(100)))
    found = Checkpoint(tmp_path).read({})
    assert found['step']==found['w'][0]+1==(1 if moment<3 else 2) and not list(tmp_path.glob('.*.tmp'))

CHILD = '''
import sys; sys.path.insert(0, {tests!r})
import conftest, test_resume as t
write = t.Checkpoint.write
def tell(self, *args): write(self, *args); print('written', flush=True)
t.Checkpoint.write = tell
t.learned(*t.new({name!r}), t.Checkpoint({folder!r}, every=0), 2000)
'''

@pytest.mark.parametrize('name', ['dqn', 'a2c'])
def test_sigkill(name, tmp_path):
    "A process that is killed from outside, at any moment, while it writes after every step"
    at,code = random.Random(name),CHILD.format(tests=str(Path(__file__).parent), name=name, folder=str(tmp_path))
    child = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE)
    for _ in range(at.randint(10, 100)): assert child.stdout.readline()==b'written\n'
    os.kill(child.pid, signal.SIGKILL); assert child.wait()==-signal.SIGKILL; child.stdout.close()
    (whole,env),(part,env2) = new(name),new(name)
    dies(env2, 'step', 2000//env.num_envs-8)         # more than are left after ten
    h,g = learned(whole, env, steps=2000),learned(part, env2, tmp_path, 2000)
    same(g, h); same(part.arrays(), whole.arrays()); assert part.rng.random()==whole.rng.random()

@pytest.fixture
def job(tmp_path, monkeypatch):
    "As in a batch, but checkpoints are written whenever they can be"
    monkeypatch.setenv('RLREC_CHECKPOINT', str(tmp_path/'job')); monkeypatch.setattr(Checkpoint, 'due', lambda self: True)
    return monkeypatch

@pytest.mark.parametrize('method,told', [('mbpo', 4), ('darlr', 5), ('ucb', 4), ('crr', 8)])
def test_a_killed_study_shows_the_same(method, told, job):
    "Killed in the middle of an evaluation, which is a third of what a judge is asked for"
    def some(n=None):
        study,last = Study(coat(), 1, epochs=3, steps_per_epoch=3000, darlr=dict(k_sel=5), models=fitted(coat(), 1, 3)),{}
        with job.context() as m:
            if n: m.setattr(Judge, 'play', judged(n))
            policy,seen = study.learn(method, last.update if method=='darlr' else None, (lambda a: float(last['similarity'].mean())) if method=='darlr' else None)
        return study,policy,seen
    def judged(n, play=Judge.play):
        calls = iter(range(n-1))
        def once(*args, **kw):
            if next(calls, None) is None: raise Killed
            return play(*args, **kw)
        return once
    with job.context() as m: m.delenv('RLREC_CHECKPOINT'); study,policy,seen = some()
    with pytest.raises(Killed): some(told)
    for n in (None, 1):           # goes on; finished
        study2,policy2,seen2 = some(n)
        same(seen2, seen); same(policy2.arrays(), policy.arrays()); same(study2.notes, study.notes); same(study2.tables, study.tables); assert study2.seconds[method]>0

@pytest.mark.parametrize('name', ['a2c', 'dqn'])
def test_a_killed_entropy_training_shows_the_same(name, job):
    bandit = problem('synthetic-music'); on = evaluation_set(bandit, 100)
    def some(n=None):
        agent = make_agent(name, bandit, 0, 'synthetic-music')
        if n: dies(agent, 'q' if name=='dqn' else 'logits', n)
        return watch(agent, bandit, on, 1280, 64)
    with job.context() as m: m.delenv('RLREC_CHECKPOINT'); whole = some()
    with pytest.raises(Killed): some(8)
    same(some(), whole)

def test_a_killed_cold_start_training_is_found_by_what_it_depends_on(job, tmp_path):
    def some(n=None, **kw):
        with job.context() as m:
            if n: m.setattr(ColdStartEnv, '_pay', lambda *args: calls.pop() and pay(*args))
            return cold_start.train(world(), 0, 20, 4, env=dict(users=world().users[:30]), hidden=(8,), warmup=20, **kw)
    pay,calls = ColdStartEnv._pay,[True]*30
    with job.context() as m: m.delenv('RLREC_CHECKPOINT'); a,h = some()
    with pytest.raises(IndexError): some(30)
    b,g = some()
    same(g, h); same(b.arrays(), a.arrays())
    some(gamma=0.)                # another training has another folder
    assert len(list((tmp_path/'job'/'cold-start').iterdir()))==2
