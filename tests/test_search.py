"Searches for settings: what happens when they are cut off, and what the notebook does not show"
import json,os,shutil,signal,subprocess,sys
from pathlib import Path
import numpy as np, pandas as pd, papermill as pm, pytest
from rlrec.analyses.feed import Study
from rlrec.analyses.search import default,effort,history,importances,remember,search,space
from rlrec.core import ConfigError,stream
from rlrec.data.catalogue import load
from rlrec.envs.feed_methods import SETUPS

SPACE = dict(size=[10,20,30,40], weight=[.5,1.,2.,5.], kind=['flat','round'], deep=[True,False])
FIRST = dict(size=20, weight=1., kind='round', deep=False)

def objective(s): return stream(0, *s.values()).standard_normal()+s['size']/10, dict(reported=float(s['weight']))

def go(path, trials=20, objective=objective, **kw): return search(objective, SPACE, trials, path, 'test', **dict(seed=5, first=FIRST) | kw)

# a process that is killed, not asked to stop, while it tries its n-th setting
KILLED = '''
import os,signal,sys
sys.path.insert(0, {tests!r})
import test_search as t
n = 0
def objective(s):
    global n
    n += 1
    if n=={at}: os.kill(os.getpid(), signal.SIGKILL)
    return t.objective(s)
t.go({path!r}, objective=objective)
'''

def killed(path, at):
    done = subprocess.run([sys.executable, '-c', KILLED.format(tests=str(Path(__file__).parent), at=at, path=str(path))], env=os.environ | {'OMP_NUM_THREADS': '1'})
    assert done.returncode==-signal.SIGKILL

@pytest.fixture(scope='module')
def whole(tmp_path_factory): return history(go(tmp_path_factory.mktemp('whole')/'journal'))

@pytest.mark.parametrize('deaths', [(4,), (13, 2)])
def test_a_killed_search_goes_on_as_if_nothing_had_happened(whole, tmp_path, deaths):
    path = tmp_path/'journal'
    for at in deaths: killed(path, at)
    tried = []
    study = go(path, objective=lambda s: tried.append(s) or objective(s))
    assert history(study).equals(whole)
    before = sum(deaths)-len(deaths)                                # settings whose trial was finished by the killed processes
    assert tried==whole[~whole.again][list(SPACE)].iloc[before:].to_dict('records')
    states = [t.state.name for t in study.trials]
    assert states.count('FAIL')==len(deaths) and states.count('COMPLETE')==20 and len(states)==20+len(deaths)

def test_a_line_that_was_cut_off_is_removed(whole, tmp_path):
    path = tmp_path/'journal'
    go(path, 8)
    text = path.read_bytes()
    path.write_bytes(text+b'{"op_code": 6, "worker_id": "x", "tri')  # no end of line: its process ended
    assert history(go(path)).equals(whole)
    assert all(json.loads(line) for line in path.read_text().splitlines())

def test_an_error_or_a_value_that_is_none_ends_the_search_and_not_the_journal(whole, tmp_path):
    path = tmp_path/'journal'
    def interrupt(s): raise KeyboardInterrupt
    for bad,error in ((lambda s: 1/0, ZeroDivisionError), (interrupt, KeyboardInterrupt), (lambda s: (np.nan, {}), ConfigError), (lambda s: (np.inf, {}), ConfigError)):
        with pytest.raises(error): go(path, objective=bad)
    study = go(path)
    assert history(study).equals(whole) and [t.state.name for t in study.trials[:4]]==['FAIL']*4

def test_fewer_trials_are_the_beginning_of_more(whole, tmp_path):
    for n in (1, 7): assert history(go(tmp_path/f'{n}', n)).equals(whole[:n]) and history(go(tmp_path/f'{n}', 20), n).equals(whole[:n])

def test_a_known_setting_is_not_tried_again(tmp_path):
    tried = []
    h = history(search(lambda s: (tried.append(s) or s['a'], dict(note=-s['a'])), dict(a=[1,2,3]), 15, tmp_path/'j', 'tiny'))
    assert len(h)==15 and len(tried)==len(set(h.a))<=3 and h.again.sum()==15-len(tried) and (h.value==h.a).all() and (h.note==-h.a).all()

def test_kinds_of_values_survive_the_file(whole, tmp_path):
    assert {type(v) for v in whole.deep.tolist()}=={bool} and {type(v) for v in whole.kind}=={str} and set(whole['size'])<={10,20,30,40}
    assert whole.loc[0, list(SPACE)].to_dict()==FIRST

def test_one_journal_holds_several_studies(whole, tmp_path):
    other = history(search(objective, SPACE, 20, tmp_path/'j', 'another', seed=6, first=FIRST))
    assert history(go(tmp_path/'j')).equals(whole) and not other.equals(whole)
    assert remember(tmp_path/'j', 'another', 'x', lambda: 1)==1 and remember(tmp_path/'j', 'test', 'x', lambda: 2)==2 and remember(tmp_path/'j', 'another', 'x', lambda: 3)==1

def test_another_question_under_the_same_name_is_refused(tmp_path):
    go(tmp_path/'j', 2)
    for other in (dict(seed=6), dict(first=None)):
        with pytest.raises(ConfigError, match='give this one another name'): go(tmp_path/'j', 2, **other)

def test_effort_against_the_slow_way(whole):
    e = effort(whole)
    for n in range(1, len(whole)+1):
        part = whole[:n]; best = part.value.idxmax()
        assert e.chosen[n]==best and np.isclose(e.best[n], part.value.max()-whole.value[0]) and np.isclose(e.worth[n], whole.reported[best]-whole.reported[0])
    assert np.allclose(e.gap, e.best-e.worth) and e.best.is_monotonic_increasing and (e.loc[1]==0).all()

def test_importances_know_what_the_value_was_made_of(tmp_path):
    h = history(search(lambda s: (float(s['size']), {}), SPACE, 20, tmp_path/'j', 'size', seed=1))
    i = importances(h, SPACE, seed=2, shuffles=3)
    assert list(i.index)==list(SPACE) and i.share['size']>.9 and (i.share.drop('size')<.05).all() and i.equals(importances(h, SPACE, seed=2, shuffles=3))

@pytest.mark.parametrize('name', SETUPS)
def test_grids_are_those_of_the_paper(name):
    s = space(name)
    assert s['lambda_s']==[.5,1.,2.,5.] and s['lambda_d']==[.01,.05,.1,.5] and s['lambda_uncertainty']==[.01,.05,.1,.5,1.]
    assert all(s[k]==[1,2,3] for k in ('selector_layers','layers')) and s['selector_window']==[3,5,10]
    assert s['k_sel']=={'kuairand-pure': [50,100,150,200], 'yahoo-r3': [25,50,75,100]}.get(name, [10,20,30,40])
    assert ('lambda_entropy' in s)==(name in ('kuairec','kuairand-pure'))

def test_the_first_trial_is_what_the_feed_study_trains():
    data = load('synthetic-coat', size=.3)
    plain = Study(data, epochs=1, steps_per_epoch=3000, judged='tuning')
    other = Study(data, epochs=1, steps_per_epoch=3000, judged='tuning', darlr=default('synthetic-coat'), models=plain.models)
    assert plain.learn('darlr')[1]==other.learn('darlr')[1]

def test_a_report_that_is_begun_again_finds_its_trials(tmp_path):
    "As a batch does it: a temporary folder that is lost with the process, then the final one beside it"
    report,rows = Path(__file__).parent.parent/'reports'/'darlr_search.ipynb',{}
    for name,trials in (('.seed-0.tmp', 1), ('seed-0', 2)):
        out = tmp_path/name; out.mkdir()
        pm.execute_notebook(report, out/'report.ipynb', dict(dataset='synthetic-coat', size=.3, trials=trials, epochs=1, steps_per_epoch=3000, repeats=1, fresh=0, out='.'), cwd=out, progress_bar=False, kernel_name='python3', extra_arguments=['--log-level=50'])
        rows[trials] = pd.read_parquet(out/'rows.parquet')
        if trials==1: shutil.rmtree(out)
    journal, = tmp_path.glob('*.journal')
    states = [json.loads(l) for l in journal.read_text().splitlines()]
    assert sum(l['op_code']==6 and l.get('state')==1 for l in states)==2             # two trials were finished, by two processes
    trial0 = [r[r.variant.str.contains('trial=0')].drop(columns='n') for r in rows.values()]
    assert len(trial0[0]) and trial0[0].reset_index(drop=True).equals(trial0[1].reset_index(drop=True))
