"What every environment promises: Gymnasium's checker, seeding, an oracle that is never beaten, no future in a state"
import gymnasium as gym, numpy as np, pytest
from gymnasium.utils.env_checker import check_env
from rlrec.core import stream
from rlrec.data.catalogue import load
from rlrec.envs import REGISTERED
from rlrec.envs.cohorts import cohort
from rlrec.envs.cold_start import ColdStartEnv,build_world,fit_tools

OPTIONS = {'rlrec/ColdStart-v0': dict(encoder='tfidf-svd')}

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
    from rlrec.core import ConfigError
    env = ColdStartEnv(world, 3); _,info = env.reset(options=dict(users=world.users[[2,0,2]])); assert (info['user']==world.users[[2,0,2]]).all()
    with pytest.raises(ConfigError, match='of the cohort'): env.reset(options=dict(users=[10**6]*3))
    with pytest.raises(ConfigError, match='build it with depth=400'): ColdStartEnv(world, 3, horizon=40)
