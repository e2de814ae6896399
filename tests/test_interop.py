"Other people's learners train on our environments, and our tools judge what they learned"
import gymnasium, numpy as np, pytest
import rlrec.envs
from rlrec.analyses.rollout import rollout

sb3 = pytest.importorskip('stable_baselines3')
TASK = dict(id='rlrec/ColdStart-v0', encoder='tfidf-svd')

class Theirs:
    "A Stable-Baselines3 model as our rollouts call a policy"
    def __init__(self, model): self.model = model
    def act(self, obs, info, greedy=True): return self.model.predict(obs, deterministic=greedy)[0]

@pytest.fixture(scope='module')
def model():
    "Their DQN after 400 steps of single users"
    return sb3.DQN('MlpPolicy', gymnasium.make(**TASK), learning_starts=100, batch_size=32, policy_kwargs=dict(net_arch=[32]), seed=0, device='cpu').learn(400)

def test_their_learner_trains_on_one_user(model):
    env = model.get_env()
    assert model.num_timesteps==400 and env.observation_space.shape==(389,) and env.action_space.n==2
    assert np.isfinite(model.logger.name_to_value['train/loss']) and model.logger.name_to_value['train/n_updates']>0
    assert len(model.ep_info_buffer)==40 and all(e['l']==10 for e in model.ep_info_buffer)   # sessions of ten steps

def test_their_policy_gives_valid_actions(model):
    one = gymnasium.make(**TASK)
    obs,_ = one.reset(seed=1)
    for _ in range(10):
        action,_ = model.predict(obs, deterministic=True)
        assert one.action_space.contains(action.item())
        obs,reward,terminated,truncated,_ = one.step(action.item())
        assert np.isfinite(reward) and not terminated
    assert truncated

def test_our_rollout_judges_their_policy(model):
    many = gymnasium.make_vec(**TASK, num_envs=100)
    played = rollout(many, Theirs(model), 100, seed=2)
    assert played.action.shape==(100, 10) and played.alive.all() and np.isin(played.action, [0, 1]).all()
    assert 0<=played.total.min() and 0<played.total.mean()<=10
    again = rollout(many, Theirs(model), 100, seed=2)
    assert (again.action==played.action).all() and (again.reward==played.reward).all()
