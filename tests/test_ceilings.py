"Ceilings against brute force: every sequence of tools, every session of a small feed; and the summary of the two reports"
from itertools import permutations,product
from pathlib import Path
import numpy as np, pandas as pd, papermill as pm, pytest
from rlrec.core import ConfigError,stream
from rlrec.analyses import ceilings
from rlrec.analyses.ceilings import any_slates,by_positions,each_once,feed_ceiling,replayed,sequences
from rlrec.analyses.feed import oracle_bounds
from rlrec.analyses.rows import Rows,write_rows
from rlrec.agents.policies import Uniform
from rlrec.data.base import frame
from rlrec.data.feed import FeedDataset
from rlrec.envs.cold_start import ColdStartEnv,cold_start_world
from rlrec.envs.feed import FeedEnv

ROOT = Path(__file__).parent.parent
SWITCHES = [dict(zip(('consume_hits','exclude_shown','update_history'), on)) for on in product([False,True], repeat=3)]

@pytest.fixture(scope='module')
def world(): return cold_start_world(encoder='tfidf-svd', tools=('precision','discovery','popularity'))

def played(world, user, H, K, tools=('precision','discovery'), **env):
    "What every sequence earns, each from its own start"
    acts = np.array(list(product(range(len(tools)), repeat=H)))
    e = ColdStartEnv(world, len(acts), H, K, tools=tools, autoreset=False, **env); e.reset(options=dict(users=np.full(len(acts), user)))
    out,alive = np.zeros(len(acts)),np.ones(len(acts), bool)
    for a in acts.T: _,reward,gone,_,_ = e.step(a); out += reward*alive; alive &= ~gone
    return out

@pytest.mark.parametrize('switches', SWITCHES)
@pytest.mark.parametrize('more', [dict(), dict(reward='hits'), dict(reward='shaped', bonus_per='movie'), dict(stop_when_exhausted=True)])
def test_the_optimum_is_that_of_all_sequences(world, switches, more):
    users = world.users[3::len(world.users)//6]
    s = sequences(world, users, 5, 3, **switches, **more)
    force = np.array([played(world, u, 5, 3, **switches, **more) for u in users])
    assert s.exact.all()
    np.testing.assert_allclose(s.total, force, atol=1e-5)
    for x,y in ((s.best, force.max(1)), (s.worst, force.min(1)), (s.coin, force.mean(1))): np.testing.assert_allclose(x, y, atol=1e-5)
    if more.get('reward','hit')!='shaped': assert (s.best<=any_slates(world, users, 5, 3, more.get('reward','hit'), **switches)).all()

def test_three_tools_and_groups_of_any_size(world):
    users,tools = world.users[:9],('precision','discovery','popularity')
    s = sequences(world, users, 4, 3, tools=tools)
    np.testing.assert_allclose(s.total, [played(world, u, 4, 3, tools) for u in users])
    for rows in (1, 200): np.testing.assert_array_equal(sequences(world, users, 4, 3, tools=tools, rows=rows).total, s.total)

@pytest.mark.parametrize('width', [1, 3, 40])
def test_a_narrow_search_is_a_lower_bound_and_says_so(world, width):
    users = world.users[:12]
    narrow,full = sequences(world, users, 6, 3, width=width),sequences(world, users, 6, 3)
    assert (narrow.best<=full.best).all() and narrow.total is None
    np.testing.assert_array_equal(narrow.best[narrow.exact], full.best[narrow.exact])
    assert np.isnan(narrow.coin[~narrow.exact]).all() and narrow.exact.all()==(width==40)

@pytest.mark.parametrize('reward', ['hit','hits'])
def test_positions_are_the_state_where_no_list_moves(world, reward):
    users = world.users[:15]
    s = sequences(world, users, 9, 4, reward=reward, update_history=False)
    for k,u in enumerate(users):
        a,b = (world.lists[t][k][world.lists[t][k]<world.n_items] for t in ('precision','discovery'))
        assert s.best[k]==by_positions(a, b, set(world.liked[1][world.liked[0][k]:world.liked[0][k+1]].tolist()), 9, 4, reward)
    assert (s.states.max(0)<=np.arange(9)*4+1).all()

def test_positions_against_all_orders_on_random_lists():
    "Lists that overlap a lot and run out"
    rng = np.random.default_rng(0)
    def force(lists, liked, order, K):
        seen,total = set(),0
        for o in order: slate = [i for i in lists[o] if i not in seen][:K]; total += any(i in liked for i in slate); seen |= set(slate)
        return total
    counts = set()
    for _ in range(150):
        lists,liked,K = [rng.permutation(9)[:7].tolist() for _ in range(2)],set(rng.permutation(9)[:3].tolist()),int(rng.integers(1,3))
        every = {o: force(lists, liked, o, K) for o in product((0,1), repeat=5)}
        assert by_positions(*lists, liked, 5, K)==max(every.values())
        counts.add(len({v for o,v in every.items() if sum(o)==2})>1)
    assert True in counts                       # how often each tool was used does not decide what was earned

def test_users_and_rewards_that_cannot_be(world):
    with pytest.raises(ConfigError, match='once each'): sequences(world, world.users[[0,0]])
    with pytest.raises(ConfigError, match='ids of the cohort'): sequences(world, np.array([10**7]))
    with pytest.raises(ConfigError, match='not for'): any_slates(world, world.users, 5, 3, 'shaped')
    with pytest.raises(ConfigError, match='ids of the cohort'): any_slates(world, np.array([10**7]), 5, 3)
    with pytest.raises(ConfigError, match='at least one'): sequences(world, [])
    with pytest.raises(ConfigError, match='1 or more'): sequences(world, world.users[:2], width=-1)

def test_too_many_states_are_refused_before_they_fill_the_memory(world, monkeypatch):
    monkeypatch.setattr(ceilings, 'LIMIT', 40*world.n_items)
    with pytest.raises(ConfigError, match='give a width'): sequences(world, world.users[:3], 8, 3)
    assert sequences(world, world.users[:1], 8, 3, width=2).best.shape==(1,)

@pytest.mark.parametrize('switches', [dict(update_history=False), dict(exclude_shown=False)])
def test_merged_states_keep_the_most_that_led_there(world, switches):
    "A search that keeps two states finds at least what greedily keeping one finds, and its sequences earn what it says"
    users = world.users[:40]
    for width in (1, 2):
        s = sequences(world, users, 7, 3, width=width, **switches)
        e = ColdStartEnv(world, len(users), 7, 3, autoreset=False, **switches); e.reset(options=dict(users=users))
        np.testing.assert_allclose(sum(e.step(a)[1] for a in s.actions.T), s.best)

def test_a_coin_earns_what_is_computed(world):
    users = world.users[:60]
    s = sequences(world, users, 6, 3)
    tossed = np.array([each_once(world, dict(coin=Uniform(2)), users, k, 6, 3)['coin'].total.mean() for k in range(60)])
    assert abs(tossed.mean()-s.coin.mean())<4*tossed.std(ddof=1)/np.sqrt(60)

def little(seed, rule, users=2, items=6):
    "A feed whose sessions can all be listed"
    rng = stream(seed, 'little')
    of = [tuple(f'{t}' for t in sorted(set(rng.integers(3, size=rng.integers(3)).tolist()))) for _ in range(items)]
    table = pd.DataFrame(dict(item_id=range(items), title='', categories=pd.Series(of, dtype=object), year=np.nan, tags=''))
    truth = rng.integers(0, 6, size=(users,items)).astype(np.float32)
    log = frame([0], [0], [1], [1])
    near = dict(distance=np.abs(np.subtract.outer(*[rng.random(items)]*2)).astype(np.float32)) if rule=='distance' else {}
    return FeedDataset('little', log, log.iloc[:0], table, pd.DataFrame(dict(user_id=range(users))), (0.,5.), 'x', truth=truth, exit_rule=rule, **near)

def every_session(data, mode, horizon, **rule):
    "The best of all sessions, each played in the feed"
    items = range(data.feed_items)
    orders = np.array(list(product(items, repeat=horizon) if mode=='FB' else permutations(items, horizon)))
    best = []
    for u in range(data.feed_users):
        env = FeedEnv(data, len(orders), mode=mode, horizon=horizon, autoreset=False, **rule); env.reset(options=dict(users=np.full(len(orders), u)))
        total = np.zeros(len(orders))
        for k in orders.T:
            try: total += env.step(k)[1]
            except ConfigError as e:
                assert 'every session is over' in str(e); break
        best.append(total.max())
    return np.array(best)

@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('rule,mode,N,M,horizon', [(r,m,N,M,H) for r,Ms in (('tags', (0,1)), ('distance', (0,.25))) for M in Ms for m in ('FB','NX_0') for N,H in ((1,4),(3,4),(2,5)) if not (m=='FB' and H==5)])
def test_lower_exact_upper(seed, rule, mode, N, M, horizon):
    data,kw = little(seed, rule),dict(exit_window=N, exit_threshold=M)
    exact,users = every_session(data, mode, horizon, **kw),np.arange(data.feed_users)
    wide,narrow = (feed_ceiling(data, users, mode, w, **kw, horizon=horizon) for w in (3000, 1))
    np.testing.assert_allclose(wide.lower, exact, atol=1e-5)
    assert (narrow.lower<=exact+1e-5).all() and (exact<=wide.upper+1e-5).all()
    assert (wide.upper<=oracle_bounds(data, users, N, M, horizon)[mode]+1e-5).all()
    for c in (wide, narrow): np.testing.assert_allclose(replayed(data, users, c.items, mode, **kw, horizon=horizon).total, c.lower, atol=1e-5)

def test_exactly_ten_items():
    data = little(0, 'tags', items=12); users = np.arange(2)
    c = feed_ceiling(data, users, 'NX_10')
    np.testing.assert_allclose(c.lower, np.sort(data.truth, 1)[:,-10:].sum(1))
    np.testing.assert_allclose(replayed(data, users, c.items, 'NX_10').total, c.lower)

def test_coat_is_exact(real_data):
    real_data('coat')
    from rlrec.data.catalogue import load
    data = load('coat'); users = np.arange(data.feed_users)
    for mode,best in (('NX_0', np.sort(data.truth, 1)[:,-30:].sum(1)), ('FB', 30*data.truth.max(1)), ('NX_10', np.sort(data.truth, 1)[:,-10:].sum(1))):
        c = feed_ceiling(data, users, mode)
        np.testing.assert_allclose(c.lower, best, rtol=1e-5); np.testing.assert_array_equal(c.lower, c.upper)
    assert abs(feed_ceiling(data, users).lower.mean()-88.15)<.005

def run(name, out, **parameters):
    out.mkdir(parents=True, exist_ok=True)
    pm.execute_notebook(ROOT/'reports'/f'{name}.ipynb', out/'report.ipynb', dict(out=str(out), **parameters), progress_bar=False, kernel_name='python3', extra_arguments=['--log-level=50'])

def test_a_narrow_ceiling_is_never_below_a_policy(tmp_path):
    run('ceilings', tmp_path, dataset='synthetic-movielens', encoder='tfidf-svd', users=40, train_episodes=20, horizon=8, slate=5, width=1)
    rows = pd.read_parquet(tmp_path/'rows.parquet')
    assert rows.query("policy=='optimum' and metric=='exact_share'").value.item()<1
    gap = rows.query("metric=='gap' and policy in ['heuristic','dqn','always-precision','always-discovery','oracle']").value
    assert len(gap)==5 and (gap>=0).all()

def test_summary_joins_the_seeds_and_finished_batches_are_placed(tmp_path):
    tiny,modes = dict(dataset='synthetic-coat', size=.3),('FB','NX_0','NX_10')
    for seed in (2, 1):
        run('ceilings', tmp_path/'batch'/'ceilings'/f'seed-{seed}', seed=seed, dataset='synthetic-movielens', encoder='tfidf-svd', users=25, train_episodes=20, horizon=5)
        run('ceilings_feed', tmp_path/'batch'/'ceilings_feed'/f'seed-{seed}', seed=seed, **tiny, **(dict(finished=dict(feed=str(tmp_path/'feed'))) if seed==1 else {}))
        if seed==1: continue
        known = pd.read_parquet(tmp_path/'batch'/'ceilings_feed'/'seed-2'/'rows.parquet').query("policy=='popularity' and metric=='R_tra'").set_index('variant')
        done = Rows('feed', 'synthetic-coat', 1)
        for m in modes: done.add('popularity', 'R_tra', known.value[f'mode={m}'], n=int(known.n[f'mode={m}']), variant=f'mode={m}'); done.add('ucb', 'R_tra', 70., n=5, variant=f'mode={m}')
        write_rows(done, tmp_path/'feed')
    first = pd.read_parquet(tmp_path/'batch'/'ceilings_feed'/'seed-1'/'rows.parquet')
    here = first.query("policy=='ucb' and variant=='mode=NX_0'").set_index('metric').value
    low,top = (first.query("policy==@p and metric=='R_tra' and variant=='mode=NX_0'").value.item() for p in ('random','optimum'))
    assert here['R_tra']==70 and abs(here['share_of_way']-(70-low)/(top-low))<1e-9
    out = tmp_path/'summary'; run('ceilings_summary', out, folder=str(tmp_path/'batch'))
    cold,feed = ((out/f'way-{n}.md').read_text() for n in ('synthetic-movielens','synthetic-coat-NX_0'))
    assert 'heuristic' in cold and '(2)' in cold and 'popularity' in feed and 'ucb' in feed
    with pytest.raises(pm.PapermillExecutionError, match='other users or another exit rule'):
        run('ceilings_feed', tmp_path/'other', seed=1, dataset='synthetic-coat', size=.3, eval_users=40, finished=dict(feed=str(tmp_path/'feed')))
