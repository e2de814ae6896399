"The audit of published tables: printed numbers against the facts, errors against simulation, verdicts against hand counts"
import itertools
import numpy as np, pandas as pd, pytest
from pathlib import Path
from fastcore.test import test_close as close
from scipy import stats
from rlrec.analyses import audit
from rlrec.analyses.feed import Judge,published_darlr,published_feed
from rlrec.analyses.rows import Rows
from rlrec.agents.policies import Table
from rlrec.core import DataError
from rlrec.data.catalogue import load

ROOT = Path(__file__).parent.parent

@pytest.fixture(scope='module')
def coat(): return load('synthetic-coat', size=.3)

def test_user_noise_is_what_replaying_shows(coat):
    "A policy that never changes, judged as published two thousand times: the spread is the formula's"
    judge = Judge(coat, modes=('NX_0',))
    totals = judge.play(Table(coat.truth.mean(0)), 'NX_0').total
    seen = audit.replay(totals, 100, 2000, seed=1)
    close(seen.std(), audit.user_noise(totals), eps=.05*seen.std()); close(seen.mean(), totals.mean(), eps=4*seen.std()/2000**.5)

def test_replay_draws_episodes_of_the_drawn_users():
    x = np.array([[0.,1.],[10.,11.]])
    seen = audit.replay(x, drawn=1, epochs=400)
    assert set(seen)=={0.,1.,10.,11.}
    assert (audit.replay(x, 3, 5, seed=4)==audit.replay(x, 3, 5, seed=4)).all() and (audit.replay(x, 3, 5, seed=4)!=audit.replay(x, 3, 5, seed=5)).any()

@pytest.mark.parametrize('rho', [0., .6, .9])
def test_correlated_error_of_a_mean(rho):
    "Simulated runs of 200 epochs around 0: the error of their means against the estimate from one run, and how often its interval holds 0"
    rng = np.random.default_rng(int(10*rho)); runs,n = 1500,200
    y = np.zeros((runs, n+200)); e = rng.normal(size=y.shape)
    for t in range(1, n+200): y[:,t] = rho*y[:,t-1]+e[:,t]
    y = y[:,200:]; sd = y.std(1, ddof=1)
    guess = np.array([s*np.sqrt(audit.correlation_time(r.reshape(20,10).mean(1), s)/n) for r,s in zip(y, sd)])
    true,naive = y.mean(1).std(),np.median(sd)/n**.5
    assert .5 < np.median(guess)/true < 1.25                   # batches of ten miss part of long correlation
    if rho: assert abs(np.median(guess)-true) < abs(naive-true)
    covers,blind = (np.mean(np.abs(y.mean(1)) < stats.t.ppf(.975, k)*g) for k,g in ((19, guess), (199, sd/n**.5)))
    assert covers > {0.: .93, .6: .9, .9: .75}[rho] and (not rho or covers > blind+.1)

def test_all_pairs_once_and_signs_turn():
    t = pd.DataFrame(dict(policy=list('dbca'), mean=[1.,2.,4.,8.], se=[.1,.2,.3,.4], n=[5,5,5,5]))
    out = audit.all_apart(t)
    assert len(out)==6 and set(map(frozenset, out.index))=={frozenset(p) for p in itertools.combinations('abcd', 2)}
    m = t.set_index('policy')['mean']
    for (a,b),r in out.iterrows(): close(r.difference, m[a]-m[b]); assert r.low<=r.difference<=r.high and r.p_holm>=r.p

def test_one_spread_for_all_rows_is_one_estimate():
    "Two rows apart by exactly the critical difference have p = 0.05, in the table of pairs as beside the leads"
    sd,df = audit.second_seed('kuairec'); d = audit.critical_runs(sd, df)
    t = pd.DataFrame(dict(policy=['a','b'], mean=[0.,d], se=sd, n=df+1))
    close(audit.all_apart(t, shared=df).p.iloc[0], .05, eps=1e-9)
    assert audit.all_apart(t).p.iloc[0] < .04                     # Welch takes the one estimate for two

def test_two_values_for_one_run_are_refused():
    r,s = (Rows('feed', 'coat', 0) for _ in range(2))
    for x,v in ((r,1.),(s,2.)): x.curve('roler', 'R_tra', [10,20], [0.,v], 5, 'mode=NX_0'); x.add('roler', 'R_tra', 0., 5, variant='mode=NX_0')
    assert len(audit.several_seeds(pd.concat([r.frame(),r.frame()]), 'coat'))==1
    with pytest.raises(DataError, match='two values for roler, seed 0'): audit.several_seeds(pd.concat([r.frame(),s.frame()]), 'coat')

def test_false_alarms_of_another_training_are_rare():
    "Five methods that are all alike, one run each, spread known from five seeds: about one pair in twenty"
    rng,share = np.random.default_rng(0),[]
    for _ in range(25):
        sd = pd.Series(rng.normal(0, 1, (5,5)).std(1, ddof=1), [f'm{i}' for i in range(5)])
        t = pd.DataFrame(dict(mean=rng.normal(0, 1, 5), sd=2., epochs=200, users=100), sd.index)
        e = audit.errors(t, spread=sd); share.append(audit.all_apart(e[e.reading=='another training']).apart.mean())
    assert 0<np.mean(share)<.1

@pytest.mark.parametrize('dataset', ['coat','kuairec','kuairand-pure','yahoo-r3'])
def test_printed_rows_are_the_published_ones(dataset):
    t = audit.printed(dataset)
    assert len(t)==13 and t.notna().drop(columns='exit_window').all().all() and t.exit_window.isna().sum()==1
    assert t.loc['darlr','mean']==published_darlr(dataset)['R_tra'][0] and (t['mean'].drop('darlr').sort_index()==published_feed(dataset)['mean'].sort_index()).all()

def test_windows_agree_with_the_tables_where_the_seed_is_the_same():
    "Seed 0 under N = 4 is in both sources for all but the three methods with a second seed"
    for d in ('kuairec','kuairand-pure'):
        w,t = audit.published_windows(d)[4],published_feed(d)['mean']; same = w.index.difference(audit.SECOND_SEED)
        assert len(w)==8 and (w[same]==t[same]).all() and (w[list(audit.SECOND_SEED)]!=t[list(audit.SECOND_SEED)]).all()

def test_where_a_value_stands():
    a = dict(random=1., popularity=3., oracle=5.)
    assert audit.stand(1., a)==(0., 'random to popularity') and audit.stand(5., a)==(1., 'above oracle') and audit.stand(0., a)[1]=='below random'

def test_shorter_memory_of_users_never_shortens_an_episode():
    data = load('synthetic-kuairand', size=.02)
    w = audit.by_window(data, (1,2,4)).pivot(index='policy', columns='exit_window', values='length').drop(index=['random','careful'])   # the same list under every rule
    assert (w[1]>=w[2]).all() and (w[2]>=w[4]).all()

def test_seeds_of_darlr_come_from_its_own_report_and_settings_stay_out():
    def frame(report, seed, policy, value, variant='mode=NX_0'): r = Rows(report, 'coat', seed); r.add(policy, 'R_tra', value, variant=variant); return r.frame()
    rows = pd.concat([frame('feed', 0, 'roler', 1.), frame('feed', 0, 'darlr', 2.), frame('darlr', 0, 'darlr', 3.), frame('darlr', 0, 'roler', 9.), frame('feed', 0, 'mbpo', 5., 'mask_in_training=true;mode=NX_0'), frame('feed', 0, 'mbpo', 6., 'act=greedy;mode=NX_0')])
    t = audit.several_seeds(rows, 'coat').set_index('policy').final
    assert t.to_dict()==dict(roler=1., darlr=3.)

def test_the_published_batches_have_five_seeds_of_every_method():
    rows = pd.concat([pd.read_parquet(ROOT/'reports'/'published'/f/'rows.parquet') for f in ('feed','darlr')], ignore_index=True)
    t = audit.intervals(audit.several_seeds(rows, 'coat'), 'training')
    assert set(audit.printed('coat').index)<=set(t.index) and (t.n==5).all() and {'random','popularity','best-fixed','oracle'}<=set(t.index)

def test_claims_have_the_verdicts_of_the_summary():
    "The same rows through the published table of the entropy study"
    folder = ROOT/'reports'/'published'/'policy_entropy'
    lines = [[c.strip() for c in l.strip('|').split('|')] for l in (folder/'verdict.md').read_text().splitlines()]
    theirs = {(l[0],l[1],r): c for l in lines[2:] if ',' not in l[0] for r,c in zip(lines[0][2:], l[2:])}
    ours = audit.claims(pd.read_parquet(folder/'rows.parquet'))
    assert len(ours)==len(theirs)==50
    for r in ours.itertuples(): assert r.verdict in theirs[r.problem,r.actor,r.reading] and f'{r.difference:+.2f}' in theirs[r.problem,r.actor,r.reading]
