"The report card on worlds with known answers, for every way of being a policy"
import random
from pathlib import Path
import gymnasium as gym, numpy as np, papermill as pm, pytest, torch
from rlrec.agents.a2c import A2C
from rlrec.agents.base import Policy
from rlrec.agents.dqn import DQN
from rlrec.agents.policies import Constant,Oracle,Table,UCB,Uniform
from rlrec.agents.tasks import BestArm,Corridor,FeedTask,IdentityTask
from rlrec.analyses.ceilings import sequences
from rlrec.analyses.report_card import Played,Seat,load_policy,named_policy,open_env,play_card,report_card,way_of
from rlrec.analyses.rows import Rows
from rlrec.core import ConfigError,DataError
from rlrec.data.catalogue import load
from rlrec.envs.cold_start import ColdStartEnv,cold_start_world
from rlrec.envs.feed import FeedEnv
from rlrec.envs.simulated_feed import SimulatedFeedEnv

SEEDS = (0, 1, 2)
COLD = dict(encoder='tfidf-svd')

def right(obs): return obs.argmax(1)

class Sure(Policy):
    "Probabilities only: surely the symbol that is seen"
    name = 'sure'
    def probs(self, obs, info): return obs

@pytest.fixture(scope='module')
def coat(): return load('synthetic-coat', size=.3)

def test_the_best_policy_has_all_of_the_way_and_chance_none():
    best = report_card(right, IdentityTask(32), episodes=64, seeds=SEEDS, ceiling=10.)
    assert best['share_of_way']==1 and best['reward']==10 and best['length']==10
    chance = report_card(Uniform(4), IdentityTask(32), episodes=64, seeds=SEEDS, ceiling=right)
    assert chance['share_of_way']==0 and chance['ceiling']==10 and chance['entropy']==pytest.approx(np.log(4)) and chance['argmax_ties']==1

def test_known_arms():
    card = report_card(Constant(1, n_actions=3), BestArm(100), baseline=Constant(2, n_actions=3), episodes=2000, seeds=SEEDS, ceiling=.8)
    assert card['reward']==pytest.approx(.5, abs=.03) and card['baseline']==pytest.approx(.8, abs=.03) and card['share_of_way']==pytest.approx(0, abs=.1)
    assert card['coverage']==pytest.approx(1/3) and card['batch_entropy']==0 and card['entropy']==0 and card.verdict=='different'

def test_forbidden_arms_are_respected_by_ours_and_told_of_others():
    card = report_card(Uniform(3), BestArm(50, forbid=True), episodes=100, seeds=SEEDS)
    assert card['entropy']==pytest.approx(np.log(2))            # two of three are allowed
    with pytest.raises(ConfigError, match='forbidden action'): report_card(lambda obs: np.zeros(len(obs), int), BestArm(50, forbid=True), seeds=(0,))

def test_a_known_sequence_of_items():
    task = FeedTask(8)
    _,value = task.best_sequence()
    assert report_card('random', task, episodes=400, seeds=SEEDS, ceiling=value)['floor']<value

@pytest.mark.parametrize('policy', [right, Sure(), type('Act', (), dict(act=lambda self, obs, info, greedy=True: obs.argmax(1)))(), type('Theirs', (), dict(predict=lambda self, obs, deterministic=True: (obs.argmax(1), None)))()],
                         ids=['function', 'probs', 'act', 'predict'])
def test_every_way_of_being_a_policy(policy):
    card = report_card(policy, IdentityTask(16), baseline=right, episodes=20, seeds=SEEDS, ceiling=10.)
    assert card['reward']==10 and card['difference']==0 and card.verdict=='equal' and card['p_equal']<.05
    if policy.__class__ is not Sure: assert np.isnan(card['entropy']) and 'tells no probabilities' in card.frame.loc['entropy', 'how']
    assert not (card.frame.value.isna() & ~card.frame.how.str.startswith('not known')).any()          # nothing is missing without a word

def test_a_copy_of_the_baseline_is_equal_even_where_it_draws():
    a,b = (A2C(4, 4, seed=3) for _ in range(2))
    card = report_card(a, IdentityTask(16), baseline=b, episodes=50, seeds=SEEDS, greedy=False)
    assert card['difference']==0 and card.verdict=='equal'
    other = report_card(a, IdentityTask(16), baseline=b, episodes=50, seeds=SEEDS)
    assert (other.seeds.reward!=card.seeds.reward).any()                                               # drawing is another way of acting

def test_the_oracle_has_a_share_of_one_in_a_bandit():
    card = report_card(Oracle(), 'rlrec/Ads-v0', episodes=100, seeds=SEEDS)
    assert card['share_of_way']==pytest.approx(1) and card.frame.loc['ceiling', 'how'].startswith('exact')
    low,high = report_card('random', 'rlrec/Ads-v0', episodes=400, seeds=SEEDS).frame.loc['share_of_way', ['low','high']]
    assert low<.05 and high>-.05

def test_the_best_sequence_of_every_user_has_a_share_of_one():
    "Cold start, exactly: whoever plays the optimal tools has come all the way"
    world = cold_start_world('synthetic-movielens', encoder='tfidf-svd')
    s = sequences(world, world.users[:20], horizon=4, slate=5)
    plan = dict(zip(s.users.tolist(), s.actions))
    class Plan:
        name = 'plan'
        def act(self, obs, info, greedy=True): return np.array([plan[u][round(t*4)] for u,t in zip(info['user'].tolist(), obs[:,1])])
    make = lambda n: ColdStartEnv(world, n, 4, 5, users=world.users[:20])
    card = report_card(Plan(), make, baseline='oracle', episodes=40, seeds=SEEDS, ceiling_users=0)
    assert card['share_of_way']==pytest.approx(1) and card['difference']>=0 and '20 users' in card.frame.loc['ceiling', 'how']
    few = report_card('random', make, episodes=40, seeds=SEEDS, ceiling_users=10)                      # estimated from ten users, chance is chance all the same
    assert few['share_of_way']==0 and len(few.limit.value)==10 and card['floor']==few['floor']
    again = report_card(Plan(), make, episodes=40, seeds=SEEDS, ceiling=card.limit)
    assert again['share_of_way']==card['share_of_way'] and again['ceiling']==card['ceiling']

def test_the_best_items_of_a_feed(coat):
    "Nobody leaves Coat's twin: the oracle's list is the best, with and without repeats"
    for mode in ('NX_0', 'FB'):
        card = report_card('oracle', FeedEnv(coat, 20, mode=mode), episodes=40, seeds=SEEDS, ceiling_users=0)
        assert card['share_of_way']==pytest.approx(1, abs=1e-5) and card.frame.loc['ceiling', 'how'].startswith('exact')

def test_two_bounds_where_users_leave():
    card = report_card('popularity', lambda n: FeedEnv(load('synthetic-kuairec', size=.04), n, window=4), baseline='careful', episodes=30, seeds=SEEDS)
    assert 0<card['share_of_bound']<=card['share_of_way']<1 and card['bound']>=card['ceiling'] and card['length']<30
    assert card['ceiling']>card['baseline']>card['reward'] and card.verdict=='different'           # who looks at the tags keeps the users

def test_other_environments_have_a_greedy_oracle_or_say_what_is_missing():
    world = cold_start_world('synthetic-movielens', encoder='tfidf-svd', depth=150)
    card = report_card('oracle', ColdStartEnv(world, 20, 15, 10), episodes=20, seeds=SEEDS)             # 2^15 sequences are too many
    assert card['share_of_way']==1 and card.frame.loc['ceiling', 'how'].startswith('greedy oracle')
    ahead = lambda obs: np.ones(len(obs), int)
    card = report_card(ahead, Corridor(16), episodes=20, seeds=(0,))
    for metric,why in dict(ceiling='does not tell', tie_share='does not tell', entropy='no probabilities', argmax_ties='no scores', difference='no baseline').items():
        assert np.isnan(card['share_of_way']) and why in card.frame.loc[metric, 'how']
    assert 'one seed has no interval' in card.frame.loc['reward', 'how']
    assert 'left out' in report_card(ahead, Corridor(16), episodes=20, seeds=(0,), ceiling=False).frame.loc['share_of_way', 'how']

def test_the_same_call_gives_the_same_bytes_and_leaves_no_trace():
    agent,ucb,env = A2C(4, 4, seed=1),UCB(np.zeros(4)),IdentityTask(16)
    agent.rng.random(7); ucb.act(np.zeros((5, 1)), {}); stood,counts = agent.rng.bit_generator.state,ucb.counts.copy()
    card = lambda: report_card(agent, env, baseline=ucb, episodes=30, seeds=SEEDS, greedy=False)
    first = card()
    assert agent.rng.bit_generator.state==stood and (ucb.counts==counts).all()
    np.random.seed(3); torch.manual_seed(9); env.reset(seed=5)
    assert first.frame.to_csv()==card().frame.to_csv() and first.seeds.to_csv()==card().seeds.to_csv()
    made = open_env('rlrec/Music-v0', 20); report_card('random', made, episodes=20, seeds=(0,)); assert not made.counterfactual

def test_policies_by_name_and_by_folder(tmp_path, coat):
    agent = DQN(4, 4, seed=2, hidden=(16,)); agent.save(tmp_path/'agent')
    assert load_policy(tmp_path/'agent').name=='dqn'
    card = report_card(str(tmp_path/'agent'), IdentityTask(16), baseline=agent, episodes=20, seeds=SEEDS)
    assert card['difference']==0 and card.policy=='dqn'
    Table(np.arange(coat.feed_items)).save(tmp_path/'table')
    assert report_card(tmp_path/'table', FeedEnv(coat, 10), episodes=10, seeds=(0,)).policy=='table'
    with pytest.raises(DataError, match='no saved policy'): report_card('no/where', IdentityTask(4))
    with pytest.raises(ConfigError, match="did you mean 'heuristic'"): report_card('heuristics', 'rlrec/ColdStart-v0', **COLD)

@pytest.mark.parametrize('policy, env, says', [
    (5, 'rlrec/Music-v0', 'is nothing of this'), (DQN, 'rlrec/Music-v0', 'is a class'), (DQN(7, 50, hidden=(4,)), 'rlrec/Music-v0', 'observations of 7 numbers'),
    (Uniform(3), 'rlrec/Music-v0', 'made for 3 actions; here there are 50'), (lambda obs: obs, 'rlrec/Music-v0', 'one action a row'),
    (right, 'rlrec/Tunes-v0', 'unknown environment'), (right, 7, 'an environment is')])
def test_errors_are_one_line(policy, env, says):
    with pytest.raises(ConfigError, match=says) as e: report_card(policy, env, seeds=(0,), episodes=5)
    assert '\n' not in str(e.value)

def test_shown_in_notebooks_and_written_as_rows():
    card = report_card(right, IdentityTask(16), baseline='random', episodes=20, seeds=SEEDS, name='right')
    html = card._repr_html_()
    assert '<b>right</b> in IdentityTask' in html and 'not known' in html and 'nan' not in html.lower().replace('nans', '')
    assert len(card.figure().axes)==3 and len(report_card(right, IdentityTask(16), episodes=20, seeds=SEEDS).figure().axes)==2
    rows = Rows('report_card', 'none', 0)
    for m,v,n in card.rows(): rows.add('right', m, v, n=n)
    assert len(rows)==len(card.frame)

@pytest.mark.parametrize('learner', ['DQN', 'PPO'])
@pytest.mark.parametrize('task, settings', [('rlrec/ColdStart-v0', COLD), ('rlrec/Music-v0', {})])
def test_their_models_get_a_card(learner, task, settings):
    sb3 = pytest.importorskip('stable_baselines3')
    more = dict(learning_starts=50, batch_size=16) if learner=='DQN' else dict(n_steps=100, batch_size=50, n_epochs=1)
    model = getattr(sb3, learner)('MlpPolicy', gym.make(task, **settings), seed=0, device='cpu', policy_kwargs=dict(net_arch=[16]), **more).learn(200)
    card = lambda **kw: report_card(model, task, baseline='random', episodes=40, seeds=SEEDS, ceiling_users=10, **kw, **settings)
    c = card(); assert c.policy==learner.lower() or c.policy==learner
    assert c.frame.to_csv()==card().frame.to_csv() and c['floor']<=c['ceiling'] and c['share_of_way']<=1 and not np.isnan(c['argmax_ties'])
    if learner=='PPO': assert 0<c['entropy']<=np.log(c.actions)+1e-6 and card(greedy=False).frame.to_csv()==card(greedy=False).frame.to_csv()
    else:
        assert 'tells no probabilities' in c.frame.loc['entropy', 'how']
        with pytest.raises(ConfigError, match='judge it with greedy=True'): card(greedy=False)

def test_their_model_meets_forbidden_items(coat):
    "No item twice: the best of those that are left, by its own values"
    sb3 = pytest.importorskip('stable_baselines3')
    model = sb3.DQN('MlpPolicy', gym.make('rlrec/Feed-v0', dataset=coat, mode='FB'), seed=0, device='cpu', learning_starts=50, policy_kwargs=dict(net_arch=[16])).learn(200)
    card = report_card(model, FeedEnv(coat, 10), episodes=10, seeds=SEEDS)
    assert card['length']==30 and card['share_of_way']<1
    with pytest.raises(ConfigError, match='observations of shape'): report_card(model, FeedEnv(coat, 10, window=5))

def test_a_simulated_feed_has_the_ceiling_of_its_own_table(coat):
    table = np.random.default_rng(0).random(coat.truth.shape, dtype=np.float32)
    card = report_card('oracle', SimulatedFeedEnv(coat, table, num_envs=20, mode='NX_0'), episodes=20, seeds=SEEDS, ceiling_users=0)
    assert card['share_of_way']==pytest.approx(1, abs=1e-5) and card['ceiling']<30

class Busy:
    "Draws from its own stream, counts in whole numbers, and collects"
    def __init__(self): self.t,self.log,self.count,self.inner,self.rng = 0,[],{'all': np.zeros(4)},Uniform(4),np.random.default_rng(7)
    def act(self, obs, info, greedy=True):
        self.t += 1; self.log.append(len(obs)); self.count['all'] += 1; self.inner.act(obs, info)
        return self.rng.integers(4, size=len(obs))*(self.t<10**6)

def test_whole_numbers_and_lists_are_put_back_too():
    busy = Busy(); inner = busy.inner.rng.bit_generator.state
    card = lambda: report_card(busy, IdentityTask(8), episodes=8, seeds=SEEDS).frame.to_csv()
    first = card()
    assert (busy.t, busy.log, busy.count['all'].tolist(), busy.inner.rng.bit_generator.state)==(0, [], [0]*4, inner)
    assert card()==first and busy.rng.integers(100)==np.random.default_rng(7).integers(100)

class Stepping:
    "Changes its mind with every call: a card that leaves a trace cannot be repeated"
    def __init__(self): self.t = 0
    def act(self, obs, info, greedy=True): self.t += 1; return np.full(len(obs), self.t%4)

def test_a_second_card_of_a_policy_that_counts_is_the_first():
    p = Stepping()
    a,b = (report_card(p, IdentityTask(8), episodes=24, seeds=(0,)) for _ in range(2))
    assert a.frame.to_csv()==b.frame.to_csv() and p.t==0

def makers():
    own,old = np.random.default_rng(7),np.random.RandomState(7)
    return dict(attribute=Busy(), closure=lambda obs: own.integers(4, size=len(obs)), legacy=lambda obs: old.randint(4, size=len(obs)), numpy=lambda obs: np.random.randint(4, size=len(obs)),
                python=lambda obs: [random.randrange(4) for _ in obs], torch=lambda obs: torch.randint(4, (len(obs),)))

@pytest.mark.parametrize('how', list(makers()))
def test_foreign_draws_differ_between_seeds_and_can_be_repeated(how):
    policy,env = makers()[how],IdentityTask(8)
    first = [play_card(Seat(policy), env, 8, seed).tally for seed in SEEDS]
    again = [play_card(Seat(policy), env, 8, seed).tally for seed in SEEDS]
    assert [t.count.tolist() for t in first]==[t.count.tolist() for t in again] and len({tuple(t.count) for t in first})==3

def test_streams_of_nobody_go_on_where_they_were():
    np.random.seed(3); random.seed(3); torch.manual_seed(3)
    report_card(makers()['numpy'], IdentityTask(8), episodes=8, seeds=(0,))
    now = np.random.random(),random.random(),torch.rand(1).item()
    np.random.seed(3); random.seed(3); torch.manual_seed(3)
    assert now==(np.random.random(), random.random(), torch.rand(1).item())

def telling(probs): return type('Foreign', (), dict(probs=lambda self, obs, info: probs(obs)))()

def test_scores_are_no_probabilities():
    for bad in (lambda obs: obs*3-1, lambda obs: np.full((len(obs),4), .7), lambda obs: obs*np.nan):
        with pytest.raises(ConfigError, match='if they are scores, call the method `scores`') as e: report_card(telling(bad), IdentityTask(8), episodes=8, seeds=(0,))
        assert '\n' not in str(e.value)
    card = report_card(type('Foreign', (), dict(scores=lambda self, obs, info: obs*3-1))(), IdentityTask(8), episodes=8, seeds=SEEDS)
    assert card['reward']==10 and np.isnan(card['entropy']) and card['argmax_ties']==0

def test_forbidden_actions_have_no_share_in_the_entropy():
    flat = telling(lambda obs: np.full((len(obs),3), 1/3))
    for greedy in (True, False):
        card = report_card(flat, BestArm(50, forbid=True), episodes=100, seeds=SEEDS, greedy=greedy)
        assert card['entropy']==pytest.approx(np.log(2))                       # two of three are allowed
    assert card['batch_entropy']==pytest.approx(np.log(3), abs=.05)
    with pytest.raises(ConfigError, match='no probability to any allowed action'): report_card(telling(lambda obs: np.eye(3)[np.zeros(len(obs), int)]), BestArm(50, forbid=True), episodes=50, seeds=(0,))

def test_probabilities_of_their_models_are_masked(coat):
    "A network of zeros likes all items alike: of 90, 89, ... those that are left"
    sb3 = pytest.importorskip('stable_baselines3')
    model = sb3.PPO('MlpPolicy', gym.make('rlrec/Feed-v0', dataset=coat, mode='FB'), seed=0, device='cpu', n_steps=8, batch_size=8, policy_kwargs=dict(net_arch=[4]))
    with torch.no_grad(): [p.zero_() for p in model.policy.parameters()]
    card = report_card(model, FeedEnv(coat, 5), episodes=5, seeds=(0,), ceiling=False)
    assert card['entropy']==pytest.approx(np.log(np.arange(coat.feed_items, coat.feed_items-30, -1)).mean())

def test_entropies_of_greedy_play_are_of_the_actions_taken():
    agent = A2C(4, 4, seed=3)
    card = lambda p, **kw: report_card(p, IdentityTask(16), episodes=50, seeds=SEEDS, **kw)
    best,drawn,same = card(agent),card(agent, greedy=False),card(lambda obs: agent.act(obs, {}))
    assert best['batch_entropy']==same['batch_entropy']<drawn['batch_entropy'] and best['entropy']==pytest.approx(drawn['entropy'], abs=.05)
    how = [c.frame.how for c in (best, drawn, same)]
    assert all(h['batch_entropy']=='nats, of the 500 actions taken in a seed' for h in (how[0], how[2])) and 'mean probabilities' in how[1]['batch_entropy']
    assert 'not of what it did' in how[0]['entropy'] and 'not of what it did' not in how[1]['entropy']

def test_nobody_is_left_out_where_everybody_costs_nothing(coat):
    card = report_card('oracle', FeedEnv(coat, 20), episodes=40, seeds=SEEDS, ceiling_users=3)
    assert card.frame.loc['share_of_way', ['value','low','high']].tolist()==pytest.approx([1,1,1], abs=1e-5) and len(card.limit.value)>20

def test_the_interval_holds_the_draw_of_users():
    world = cold_start_world('synthetic-movielens', encoder='tfidf-svd')
    make = lambda n: ColdStartEnv(world, n, 3, 5, users=world.users[:24])
    full,few = (report_card('always-discovery', make, baseline='random', episodes=48, seeds=SEEDS, ceiling_users=k) for k in (0, 8))
    assert 'exact: ' in full.frame.how['ceiling'] and 'draw' not in full.frame.how['share_of_way']
    assert few.frame.how['ceiling'].startswith('exact for 8 of 24 users met, estimated for the rest: ') and 'holds the draw of users' in few.frame.how['share_of_way']
    floor = [play_card(Seat(Uniform(2)), make(48), 48, s) for s in SEEDS]
    way,se = way_of(floor, few.limit.value)
    user,total = (np.concatenate([getattr(p, k) for p in floor]) for k in ('user','total'))
    y,m = np.array([((few.limit.value[u]-total[user==u]).sum(), (user==u).sum()) for u in few.limit.value]).T       # missed, met
    assert way==pytest.approx(y.sum()/m.sum()) and se==pytest.approx(np.sqrt((1-8/24)/8*((y-way*m)**2).sum()/7)/m.mean())
    half = {k: few.frame.high[k]-few.frame.value[k] for k in ('ceiling','share_of_way')}
    seeds = {k: 4.302652729911275*few.seeds[k].std()/np.sqrt(3) for k in half}
    assert half['ceiling']==pytest.approx(np.hypot(seeds['ceiling'], 1.96*se)) and half['share_of_way']==pytest.approx(np.hypot(seeds['share_of_way'], 1.96*abs(few['share_of_way'])*se/way))
    assert 'has a standard error of' in report_card('random', make, episodes=48, seeds=(0,), ceiling_users=8).frame.how['ceiling']

def test_the_standard_error_is_that_of_drawing_users():
    "Many samples of the users: their ceilings spread as the card says"
    rng,users = np.random.default_rng(0),np.arange(40)
    best = dict(enumerate(rng.gamma(2, 2, 40)))
    floor = [Played(rng.random(400), np.ones(400), rng.integers(40, size=400), None)]
    got = np.array([way_of(floor, {u: best[u] for u in rng.choice(users, 10, replace=False)}) for _ in range(2000)])
    assert np.sqrt((got[:,1]**2).mean())==pytest.approx(got[:,0].std(), rel=.1)

def test_what_each_action_would_earn_is_for_the_card():
    keys = []
    class Curious:
        def act(self, obs, info, greedy=True): keys.append(sorted(info)); return np.zeros(len(obs), int)
    card = report_card(Curious(), 'rlrec/Ads-v0', baseline=Oracle(), episodes=10, seeds=(0,))
    assert 'counterfactual' not in keys[-1] and not np.isnan(card['tie_share']) and card['difference']<0
    report_card(Curious(), 'rlrec/Ads-v0', episodes=10, seeds=(0,), counterfactual=True); assert 'counterfactual' in keys[-1]

@pytest.mark.parametrize('policy, says', [(lambda obs, info: obs, 'must take .obs.; it takes'), (lambda obs: [[0],[1,2]], 'must give an array of numbers'),
    (type('Short', (), dict(act=lambda self, obs: obs))(), 'must take .obs, info, greedy.'), (telling(lambda obs: [['a']*4]*len(obs)), 'must give an array of numbers')])
def test_what_is_asked_wrongly_is_said_in_one_line(policy, says):
    with pytest.raises(ConfigError, match=says) as e: report_card(policy, IdentityTask(4), seeds=(0,), episodes=4)
    assert '\n' not in str(e.value)

@pytest.mark.parametrize('wrong, says', [(dict(seeds=(.5,0)), 'whole numbers'), (dict(seeds=0), 'whole numbers'), (dict(episodes=10.5), 'whole number'), (dict(ceiling=float('nan')), 'finite'), (dict(ceiling='orakel'), "did you mean 'oracle'"),
    (dict(ceiling_users=-1), 'ceiling_users'), (dict(episode=5), 'cannot be made with these settings'), (dict(margin=float('nan')), 'above 0')])
def test_wrong_numbers_are_said_in_one_line(wrong, says):
    with pytest.raises(ConfigError, match=says) as e: report_card('random', 'rlrec/Ads-v0', **wrong)
    assert '\n' not in str(e.value)

def test_what_may_be_said_in_several_ways():
    card = lambda **kw: report_card(telling(lambda obs: torch.tensor(obs, requires_grad=True)), IdentityTask(8), episodes=8, **kw)
    assert card(seeds=3, ceiling=np.float32(10)).frame.to_csv()==card(seeds=(0,1,2), ceiling=10).frame.to_csv()
    assert report_card('random', 'rlrec/Ads-v0', episodes=20, seeds=2, ceiling='oracle').frame.how['ceiling']=='given: what oracle earns'
    with pytest.raises(ConfigError, match='takes the number of rows'): report_card('random', lambda: IdentityTask(8))
    assert 'the actions of a function' in report_card(right, IdentityTask(8), episodes=8, seeds=2, greedy=False).frame.how['reward']

def test_a_folder_does_not_hide_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path); (tmp_path/'random').mkdir()
    assert isinstance(named_policy('random', IdentityTask(4)), Uniform)

def test_a_verdict_explains_itself():
    card = report_card(right, IdentityTask(16), baseline=right, episodes=20, seeds=SEEDS)
    assert 'equal (no difference is seen, and it is less than the margin; margin 0.2)' in str(card) and 'equal (no difference' in card.frame.how['p_equal']
    assert str(report_card(right, IdentityTask(16), episodes=20, seeds=SEEDS)).count('beside')==0

@pytest.mark.parametrize('wrong, says', [(dict(sb3=['TD3']), "unknown learner of single choices in sb3 'TD3'"), (dict(policies=['dqn','runs/DQN/']), 'policies: two cards would have the same name, among dqn, dqn')])
def test_the_report_says_at_once_what_cannot_be(tmp_path, wrong, says):
    with pytest.raises(pm.PapermillExecutionError, match=says) as e:
        pm.execute_notebook(Path(__file__).parent.parent/'reports/report_card.ipynb', tmp_path/'out.ipynb', dict(out=str(tmp_path), **wrong), progress_bar=False, kernel_name='python3', extra_arguments=['--log-level=50'])
    assert e.value.ename=='ConfigError' and e.value.exec_count<=4
