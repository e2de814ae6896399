"What every environment promises: Gymnasium's checker, seeding, an oracle that is never beaten, no future in a state"
from copy import copy
from functools import cache
from importlib import import_module
import gymnasium as gym, numpy as np, pytest
from gymnasium.utils.env_checker import check_env
from rlrec.core import ConfigError,stream
from rlrec.data.catalogue import load
from rlrec.envs import REGISTERED
from rlrec.envs.cohorts import cohort
from rlrec.envs.cold_start import ColdStartEnv,build_world,fit_tools

OPTIONS = {'rlrec/ColdStart-v0': dict(encoder='tfidf-svd'), 'rlrec/Images-v0': dict(dataset='digits'), 'rlrec/Music-v0': dict(dataset='synthetic-music'),
           'rlrec/Ads-v0': dict(seed=2022), 'rlrec/Behaviour-v0': dict(preset='paper'),
           'rlrec/Feed-v0': dict(mode='FB'), 'rlrec/SimulatedFeed-v0': {}}         # random actions repeat items, which only FB allows

@pytest.fixture(scope='module')
def world():
    data,users = cohort(load('synthetic-movielens'))
    return build_world(data, users, fit_tools(data, ('precision','discovery','popularity','random-items'), discovery=dict(encoder='tfidf-svd')), depth=200)

@pytest.mark.parametrize('name', REGISTERED)
def test_gymnasium_checker(name):
    check_env(gym.make(name, **OPTIONS[name]).unwrapped, skip_render_check=True)

@pytest.mark.parametrize('name', REGISTERED)
def test_vector_form(name):
    env = gym.make_vec(name, num_envs=7, **OPTIONS[name])
    assert env.metadata['autoreset_mode']==gym.vector.AutoresetMode.SAME_STEP
    obs,_ = env.reset(seed=0); env.action_space.seed(0)
    for _ in range(25):
        assert env.observation_space.contains(obs) and obs.dtype==env.single_observation_space.dtype
        obs,reward,terminated,truncated,info = env.step(env.action_space.sample())
        assert reward.shape==terminated.shape==truncated.shape==(7,)
        if (terminated|truncated).any(): assert env.observation_space.contains(info['final_obs'])

@pytest.mark.parametrize('name', REGISTERED)
def test_same_seed_same_walk(name):
    def walk(seed):
        env = gym.make_vec(name, num_envs=5, **OPTIONS[name]); out = [env.reset(seed=seed)[0]]; env.action_space.seed(1)
        for _ in range(15):
            step = env.step(env.action_space.sample()); out += [step[0], step[1]]
        return np.concatenate([o.ravel() for o in out])
    assert (walk(3)==walk(3)).all() and (walk(3)!=walk(4)).any()

def test_single_form_equals_one_row(world):
    "The two forms are one environment"
    from rlrec.envs.base import SingleEnv
    one,vec = SingleEnv(ColdStartEnv(world, 1, autoreset=False)),ColdStartEnv(world, 1, autoreset=False)
    a,_ = one.reset(seed=5); b,_ = vec.reset(seed=5); np.testing.assert_array_equal(a, b[0])
    for t in range(10):
        x,y = one.step(t%2),vec.step(np.array([t%2]))
        np.testing.assert_array_equal(x[0], y[0][0]); assert x[1]==y[1][0] and x[3]==y[3][0]

@pytest.mark.parametrize('change', ['permuted', 'dropped', 'later'])
def test_no_future_in_a_state(change):
    "Whatever happens to the test ratings: first states, slates and embeddings stay the same to the last bit; so does every state before the first hit"
    data,users = cohort(load('synthetic-movielens'))
    test = data.test
    other = dict(permuted=test.assign(item=stream(0, 'deal').permutation(test['item'])), dropped=test.iloc[:0], later=test.assign(time=test.time+10**7))[change]
    make = lambda d: build_world(d, users, fit_tools(d, discovery=dict(encoder='tfidf-svd')))
    a,b = make(data),make(data.replace(test=other))
    np.testing.assert_array_equal(a.first, b.first); np.testing.assert_array_equal(a.embeddings, b.embeddings)
    for tool in a.lists: np.testing.assert_array_equal(a.lists[tool], b.lists[tool])
    A,B = ColdStartEnv(a, 300, autoreset=False),ColdStartEnv(b, 300, autoreset=False)
    oa,_ = A.reset(seed=0); ob,_ = B.reset(seed=0)
    clean,differ = np.ones(300, bool),False
    for t in range(10):
        np.testing.assert_array_equal(oa[clean], ob[clean])
        act = stream(t, 'act').integers(2, size=300)
        oa,ra,_,_,ia = A.step(act); ob,rb,_,_,ib = B.step(act)
        np.testing.assert_array_equal(ia['shown'][clean], ib['shown'][clean])
        clean &= (ra==0)&(rb==0); differ |= (ra!=rb).any()
    assert differ==(change!='later')        # the change is real: it moves rewards, except where only times moved

def test_the_oracle_is_never_beaten_when_steps_do_not_touch(world):
    def total(choose):
        env = ColdStartEnv(world, 400, counterfactual=True, autoreset=False, consume_hits=False, exclude_shown=False, update_history=False)
        _,info = env.reset(seed=0); out = 0
        for t in range(10): _,r,_,_,info = env.step(choose(info, t)); out = out+r
        return out
    best = total(lambda i,t: i['counterfactual'].argmax(1))
    for other in (lambda i,t: np.zeros(400, int), lambda i,t: np.ones(400, int), lambda i,t: stream(t, 'x').integers(2, size=400)): assert (total(other)<=best).all()

@pytest.mark.parametrize('horizon', [1, 3])
def test_no_sequence_beats_the_best_of_all(world, horizon):
    "Greedy per-step choice lies between the worst and the best of all 2^H sequences, user by user"
    from itertools import product
    def play(seq):
        env = ColdStartEnv(world, 200, horizon=horizon, autoreset=False); env.reset(seed=1)
        return sum(env.step(np.full(200, a))[1] for a in seq)
    every = np.array([play(s) for s in product([0,1], repeat=horizon)])
    env = ColdStartEnv(world, 200, horizon=horizon, counterfactual=True, autoreset=False); _,info = env.reset(seed=1); got = 0
    for _ in range(horizon): _,r,_,_,info = env.step(info['counterfactual'].argmax(1)); got = got+r
    assert (got<=every.max(0)).all() and (got>=every.min(0)).all()
    if horizon==1: assert (got==every.max(0)).all()

def test_nothing_shown_twice_and_nothing_rated(world):
    env = ColdStartEnv(world, 100, tools=('precision','discovery','popularity','random-items'), autoreset=False); env.reset(seed=0)
    rated = load('synthetic-movielens').matrix('train')
    shown = []
    for t in range(10):
        *_,info = env.step(stream(t, 'mix').integers(4, size=100)); shown.append(info['shown'])
    shown = np.concatenate(shown, 1)
    for user,row in zip(info['shown_to'], shown):
        row = row[row>=0]; assert len(set(row))==len(row) and not set(row) & set(rated[user].indices)

def test_a_catalogue_that_runs_out(world):
    "More slots than movies: the slate goes on with -1, nothing is blocked twice, and rewards stop"
    items = load('synthetic-movielens', n_users=60, n_items=60, ratings_per_user=22)
    data,users = cohort(items)
    w = build_world(data, users, fit_tools(data, discovery=dict(encoder='tfidf-svd')), depth=60)
    env = ColdStartEnv(w, 20, horizon=8, slate=10, autoreset=False); env.reset(seed=0)
    for t in range(8): _,r,_,_,info = env.step(np.full(20, t%2))
    assert (info['shown']==-1).all() and (r==0).all()

def test_given_users_and_bad_users(world):
    env = ColdStartEnv(world, 3); _,info = env.reset(options=dict(users=world.users[[2,0,2]])); assert (info['user']==world.users[[2,0,2]]).all()
    with pytest.raises(ConfigError, match='of the cohort'): env.reset(options=dict(users=[10**6]*3))
    with pytest.raises(ConfigError, match='build it with depth=400'): ColdStartEnv(world, 3, horizon=40)

# contextual bandits: four environments in all their forms

RANDOM = 'bernoulli','session'      # modes in which a reward is drawn
BANDITS = [('Images', dict(dataset='digits')), ('Images', dict(dataset='digits', reward='binary')), ('Music', dict(dataset='synthetic-music')),
           *[('Ads', dict(mode=m, scale=2.)) for m in ('table','expected',*RANDOM)], ('Behaviour', dict(preset='paper')), ('Behaviour', dict(preset='simulator'))]
bandits = pytest.mark.parametrize('name,options', BANDITS, ids=[' '.join([n, *map(str, o.values())]) for n,o in BANDITS])
made = cache(lambda name, items: import_module(REGISTERED[f'rlrec/{name}-v0']).make(**dict(items)))

@pytest.fixture
def bandit(name, options): return made(name, tuple(options.items()))

def play(bandit, seed, choose, rows=50, steps=6):
    "All observations and rewards of `choose(counterfactual, t)`"
    from rlrec.envs.bandits import BanditEnv
    env = BanditEnv(bandit, rows, counterfactual=True); obs,info = env.reset(seed=seed); seen,paid = [obs],[]
    for t in range(steps):
        obs,reward,_,_,info = env.step(choose(info['counterfactual'], t)); seen.append(obs); paid.append(reward)
    return np.stack(seen),np.stack(paid)

best = lambda rewards, t: rewards.argmax(1)
anything = lambda rewards, t: stream(t, 'anything').integers(rewards.shape[1], size=len(rewards))
fixed = lambda a: lambda rewards, t: np.full(len(rewards), a%rewards.shape[1])

@bandits
@pytest.mark.parametrize('part', ['train', 'test'])
def test_bandit_shapes(bandit, part):
    users = bandit.draw(stream(0, 'users'), 200, part)
    obs,rewards = bandit.observe(users),bandit.rewards(users)
    assert obs.shape==(200, bandit.width) and obs.dtype==np.float32 and bandit.low<=obs.min() and obs.max()<=bandit.high
    assert rewards.shape==(200, bandit.n_actions) and rewards.dtype==np.float32 and np.isfinite(rewards).all()
    assert (rewards.max(1)>rewards.min(1)).any()        # there is something to learn
    one = bandit.pay(users[:1], np.array([0]), stream(0)); assert one.shape==(1,) and one.dtype==np.float32

@bandits
def test_pay_agrees_with_rewards(bandit, options):
    "To the last bit where rewards are certain; within four standard errors of the mean where they are drawn"
    users = bandit.draw(stream(1, 'users'), 300)
    actions = stream(1, 'actions').integers(bandit.n_actions, size=300)
    mean = bandit.rewards(users)[np.arange(300),actions]
    if options.get('mode') not in RANDOM: np.testing.assert_array_equal(bandit.pay(users, actions, stream(1)), mean); return
    gap = np.stack([bandit.pay(users, actions, stream(i, 'pay')) for i in range(200)])-mean
    assert abs(gap.mean())<4*gap.std()/gap.size**.5 and gap.std()>0

@bandits
def test_the_oracle_is_never_beaten_in_a_bandit(bandit, options):
    "User by user where rewards are certain, in the mean rewards everywhere"
    users = bandit.draw(stream(2, 'users'), 1000, 'test' if options.get('dataset')!='digits' else 'train'); rewards = bandit.rewards(users)
    top = rewards.max(1)
    assert (rewards<=top[:,None]).all() and rewards.mean(0).max()<top.mean() and rewards.mean()<top.mean()
    if options.get('mode') in RANDOM: return
    _,oracle = play(bandit, 3, best)
    for other in (anything, fixed(0), fixed(-1), fixed(7)): assert (play(bandit, 3, other)[1]<=oracle).all()

@bandits
def test_same_seed_same_users_whatever_is_done(bandit):
    "No state tells of an action or of a reward"
    seen,paid = play(bandit, 4, best)
    for other in (best, anything, fixed(0)): np.testing.assert_array_equal(play(bandit, 4, other)[0], seen)
    twisted = copy(bandit); twisted.pay = lambda users, actions, rng: -bandit.pay(users, actions[::-1], rng)
    again,other = play(twisted, 4, anything)
    np.testing.assert_array_equal(again, seen); assert (other!=paid).any()
    assert (play(bandit, 5, best)[0]!=seen).any()

@bandits
def test_test_users_leave_training_alone(bandit):
    "Drawing and valuing the test population between two steps changes nothing in what training meets and earns; nor does NumPy's global generator"
    def look(rewards, t):
        users = bandit.draw(stream(t, 'test'), 100, 'test'); bandit.observe(users); bandit.rewards(users); np.random.seed(t)
        return best(rewards, t)
    for a,b in zip(play(bandit, 6, best), play(bandit, 6, look)): np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(bandit.draw(stream(8, 'test'), 50, 'test'), bandit.draw(stream(8, 'test'), 50, 'test'))

@bandits
def test_every_episode_is_one_step(name, options):
    env = gym.make_vec(f'rlrec/{name}-v0', num_envs=6, **options)
    obs,_ = env.reset(seed=9); env.action_space.seed(9)
    for _ in range(5):
        nxt,_,terminated,truncated,info = env.step(env.action_space.sample())
        assert terminated.all() and not truncated.any() and info['_final_obs'].all()
        np.testing.assert_array_equal(info['final_obs'], obs); obs = nxt

@bandits
def test_single_form_equals_one_row_of_a_bandit(name, options):
    one,vec = gym.make(f'rlrec/{name}-v0', **options).unwrapped,import_module(REGISTERED[f'rlrec/{name}-v0']).vector(1, autoreset=False, **options)
    for seed in range(5):
        a,_ = one.reset(seed=seed); b,_ = vec.reset(seed=seed); np.testing.assert_array_equal(a, b[0])
        x,y = one.step(3),vec.step(np.array([3])); np.testing.assert_array_equal(x[0], y[0][0]); assert x[1:4]==(y[1][0], True, False)

def test_training_never_sees_a_test_image():
    digits = made('Images', (('dataset', 'digits'),))
    train,test = digits.draw(stream(0), 20_000),digits.draw(stream(1), 300, 'test')
    assert not set(train) & set(test) and len(set(test))==300

@pytest.mark.parametrize('problem', [dict(seed=2024), dict(table=[1]*50), dict(table=[0, 0], n_products=2)])
def test_a_constant_table_is_refused(problem):
    with pytest.raises(ConfigError, match='for every product, so all policies earn the same and nothing can be learned'): gym.make('rlrec/Ads-v0', **problem)
