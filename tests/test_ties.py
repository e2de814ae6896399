"""Is a tie a tie: power against simulation, probabilities of improvement against counting, intervals against a known truth"""
import numpy as np, pandas as pd, pytest
from scipy import stats
from statsmodels.stats.power import TTestIndPower,TTestPower
from rlrec.core import ConfigError
from rlrec.analyses.statistics import from_summary,paired,seeds_to_show,tost_power,welch
from rlrec.analyses.ties import (Truth,all_pairs,components,coverage,design_se,detectable,improvement,improvement_ci,iqm,mean_difference,measure,
    pairing,profile,seeds_to_see,sees,spread_range,stratified,verdict,wins)

@pytest.mark.parametrize('n,effect', [(2,.5), (5,.3), (5,2.), (12,.8), (40,.25)])
def test_power_agrees_with_statsmodels(n, effect):
    assert sees(effect, np.sqrt(2/n), 2*n-2) == pytest.approx(TTestIndPower().power(effect, n, .05), abs=2e-4)
    assert sees(effect, 1/np.sqrt(n), n-1) == pytest.approx(TTestPower().power(effect, n, .05), abs=5e-4)

def test_power_agrees_with_simulated_studies():
    rng = np.random.default_rng(0)
    a,b = rng.normal(.6, 1, (20_000,8)),rng.normal(0, 1, (20_000,8))
    assert (stats.ttest_ind(a, b, axis=1).pvalue<.05).mean() == pytest.approx(sees(.6, .5, 14), abs=.012)
    d = rng.normal(0, .5, (20_000,4))
    done = np.abs(d.mean(1))+stats.t.ppf(.95, 3)*stats.sem(d, axis=1)<1.
    assert done.mean() == pytest.approx(tost_power(4, .5, 1.), abs=.01)

def test_numbers_of_seeds_are_the_smallest_that_suffice():
    for pairs in (True, False):
        n = seeds_to_see(.3, 1., pairs)
        power = lambda k: sees(.3, np.sqrt((2-pairs)/k), (2-pairs)*(k-1))
        assert power(n)>=.8>power(n-1)
        n = seeds_to_show(.5, 1., pairs)
        assert tost_power(n, 1., .5, pairs=pairs)>=.8>tost_power(n-1, 1., .5, pairs=pairs)
    assert seeds_to_see(1e-9, 1.)==np.inf and seeds_to_see(0., 1.)==np.inf and seeds_to_show(1., 0.)==2

def test_the_published_tie():
    "0.098 +- 0.31: sees 0.44 with 80 % power; equality within 2 % wants 64 seeds, give or take the error of the spread"
    told = from_summary((5.620,.085,5), (5.522,.106,5))
    assert sees(detectable(told), told.se, told.df) == pytest.approx(.8, abs=1e-6)
    assert detectable(told) == pytest.approx(.438, abs=.002) and verdict(told, .05*5.62)=='open'
    sd = np.sqrt((.085**2+.106**2)/2*5)
    assert [seeds_to_show(.02*5.62, s, False) for s in (sd, *spread_range(sd, 8))]==[64,30,231]

def test_improvement_is_counting():
    rng = np.random.default_rng(1)
    a,b = rng.integers(0, 5, (6,3)),rng.integers(0, 5, (4,3))
    by_hand = np.mean([[(x>y)+.5*(x==y) for x in a[:,t] for y in b[:,t]] for t in range(3)])
    assert improvement(a, b)==pytest.approx(by_hand) and improvement(a, b)+improvement(b, a)==pytest.approx(1)
    assert improvement(a[:,0], b[:,0])==pytest.approx(stats.mannwhitneyu(a[:,0], b[:,0]).statistic/24)
    ci = improvement_ci(a, b)
    assert ci.low<=ci.mean<=ci.high and ci.n==4

def test_strata_are_drawn_apart_and_pairs_together():
    "With two strata that are copies of each other, the spread of a difference is that of independent draws; drawn as pairs there is none"
    x = np.arange(10.)
    apart,together = stratified(mean_difference, [x, x]),stratified(mean_difference, [x, x], pairs=True)
    assert apart.se==pytest.approx(np.sqrt(2*x.var()/10), rel=.06) and together.se==0 and together.low==together.high==0

def test_wins_and_iqm():
    w = wins([1,2,3,4], [0,3,2,3])
    assert w.mean==.75 and (w.low, w.high)==pytest.approx(tuple(stats.binomtest(3, 4).proportion_ci(method='exact')))
    assert iqm([[0,1],[2,3]])==1.5 and iqm(np.arange(8))==np.mean([2,3,4,5])

def test_profile_is_one_minus_the_distribution():
    x = np.random.default_rng(0).normal(size=60); at = np.linspace(-2, 2, 9)
    p = profile(x, at)
    assert p.share.to_numpy()==pytest.approx(1-stats.ecdf(x).cdf.evaluate(at)) and (p.low<=p.share).all() and (p.share<=p.high).all() and p.share.is_monotonic_decreasing

def test_components_recover_what_was_put_in():
    rng = np.random.default_rng(0)
    found = pd.DataFrame([components(.5+rng.normal(0, .4, (6,1))+rng.normal(0, 2., (6,30))) for _ in range(400)]).mean()
    assert found['difference']==pytest.approx(.5, abs=.03) and found['var_users']==pytest.approx(4, rel=.03) and found['var_seeds']==pytest.approx(.16, rel=.15)
    assert design_se(.16, 4, 6, 30)==pytest.approx(np.sqrt((.16+4/30)/6))

def test_users_as_units_forget_the_seeds():
    "Where seeds differ, the interval over users holds the truth far too rarely, the one over seeds as promised"
    rng,hold = np.random.default_rng(0),[]
    for _ in range(600):
        d = rng.normal(0, .5, (5,1))+rng.normal(0, 1., (5,200)); c = components(d)
        hold.append((abs(d.mean())<1.96*c.se_users, abs(d.mean())<stats.t.ppf(.975, 4)*c.se_seeds))
    users,seeds = np.mean(hold, 0)
    assert users<.5 and seeds==pytest.approx(.95, abs=.03)

def test_pairing_agrees_with_the_two_tests():
    rng = np.random.default_rng(0); a = rng.normal(size=(5,40)); b = a+rng.normal(0, .3, (5,40))
    p = pairing(a, b)
    assert tuple(p.loc['seeds', ['unpaired','paired']])==pytest.approx((welch(a.mean(1), b.mean(1)).se, paired(a.mean(1), b.mean(1)).se))
    assert p.factor['users']>5 and pairing(a, a).factor['seeds']==np.inf

def test_all_pairs_mirror_each_other():
    rng = np.random.default_rng(0); w = pd.DataFrame(rng.normal(5, .1, (5,3)), columns=['a','b','c'])
    t,m = all_pairs(w, .1),all_pairs(w[['c','b','a']], .1)
    assert t.loc[('a','c'),'difference']==pytest.approx(-m.loc[('c','a'),'difference']) and t.loc[('a','c'),'verdict']==m.loc[('c','a'),'verdict']
    assert (t.p_holm>t.p).any() and len(t)==3
    same = all_pairs(w.assign(d=w.a)[['a','d']], .1).iloc[0]
    assert same.verdict=='equal' and same.wins==.5 and same.seeds_to_see==2

@pytest.mark.parametrize('skewed', [False, True])
@pytest.mark.parametrize('pairs', [False, True])
def test_the_truth_is_true(skewed, pairs):
    t = Truth(skewed=skewed); a,b = t.draw(np.random.default_rng(1), (300_000,1,1), pairs)
    assert (a>b).mean()==pytest.approx(t.beats(pairs), abs=.004) and (a-b).mean()==pytest.approx(t.difference, abs=.03)

def test_coverage_where_theory_knows_it():
    "Normal differences: the t interval covers 95 %; ignoring pairs covers more; the percentile bootstrap of three seeds cannot pass the share of resamples that are not all alike"
    t,loose,boot = (measure(k, 3, studies=600, reps=300) for k in ('t, pairs', 'Welch, pairs ignored', 'bootstrap, pairs'))
    assert t['low']-.01<=.95<=t['high']+.01 and loose['low']>.97 and boot['high']<.88 and loose['width']>2*t['width']
    assert measure('t, pairs', 3, studies=600, reps=300)==t                       # the same on every call
    with pytest.raises(ConfigError, match='unknown interval'): measure('bayes', 3)

def test_coverage_table_is_complete():
    c = coverage((3,), ('t, pairs','Welch, groups'), studies=60, reps=20)
    assert set(zip(c.interval, c.skewed))=={(i,s) for i in ('t, pairs','Welch, groups') for s in (False, True)} and (c.width>0).all()
    for r in c.itertuples(): assert measure(r.interval, 3, Truth(skewed=r.skewed), 60, 20)['coverage']==r.coverage
