"The `rlrec` command: what is refused, what runs, what a failing job leaves, what the gallery shows"
import json,os,re,shutil,signal,subprocess,sys,time
from urllib.parse import unquote
import nbformat, pandas as pd, psutil, pytest
from rlrec.batch import command,grid,records,results
from rlrec.core import ConfigError
from rlrec.data import catalogue

pytestmark = pytest.mark.xdist_group('batch')

COIN = ['''dataset: str = 'synthetic-movielens'  # not used by a coin
seed: int = 0  # the experiment's seed
out: str = ''  # folder for rows and figures
tosses: int = 50  # how often each coin is thrown
bias: float = 0.7  # chance of heads of the loaded coin
policies: list = ['fair']  # coins to throw; one of: fair, loaded
trouble: bool = False  # seed 1 fails, seed 2 kills its own process, seed 3 lies about its seed''',
'''import base64,os,signal,sys,time
from pathlib import Path
import pandas as pd
from rlrec.core import stream
Path(out, 'figures').mkdir()
Path(out, 'figures', 'a coin.png').write_bytes(base64.b64decode('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP6DwABBQECz6AuzQAAAABJRU5ErkJggg=='))''',
'''if trouble and seed==1: raise ValueError('<b>the coin</b> fell off the table')
heads = {p: (stream(seed, p).random(tosses) < (bias if p=='loaded' else .5)).mean() for p in policies}
pd.DataFrame([dict(report='coin', dataset=dataset, seed=0 if trouble and seed==3 else seed, policy=p, variant='', metric='heads', step=step, value=h, n=tosses)
              for p,h in heads.items() for step in (None, 10)]).to_parquet(Path(out)/'rows.parquet')
if trouble and seed==2: os.kill(os.getppid(), signal.SIGKILL)''',
'''print(sys.executable)
print([os.environ[k] for k in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS', 'RLREC_QUIET', 'TOKENIZERS_PARALLELISM')])
print(os.environ.get('RLREC_DATA'))''']
SUMMARY = ["folder: str = ''  # the batch\nout: str = ''  # folder for figures", "from rlrec.batch import rows\nprint(sorted(set(rows(folder).seed)))"]
NAP = [COIN[0], "import time\nimport pandas as pd\npd.DataFrame([dict(report='nap', dataset=dataset, seed=seed, policy='p', variant='', metric='m', step=None, value=1., n=1)]).to_parquet(out+'/rows.parquet')\nif seed: time.sleep(600)"]
COINS = '''name: coins
parameters: {tosses: 100}
jobs:
  - report: coin
    dataset: [synthetic-movielens]
    seed: [0, 1]
    parameters: {policies: [fair, loaded]}
'''
COMMAND = [sys.executable, '-c', 'from rlrec.batch.command import main; main()']
PATH = 'coin/synthetic-movielens/seed-'

def make_project(folder):
    for sub in 'reports','params': (folder/sub).mkdir(parents=True)
    for name,cells in dict(coin=COIN, coin_summary=SUMMARY, nap=NAP, unfinished=COIN[1:]).items():
        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells], metadata=dict(kernelspec=dict(name='python3', language='python', display_name='python3')))
        if name!='unfinished': nb.cells[0].metadata['tags'] = ['parameters']
        nbformat.write(nb, folder/'reports'/f'{name}.ipynb')
    return folder

def params(project, text, name='coins.yaml'):
    (project/'params'/name).write_text(text)
    return project/'params'/name

@pytest.fixture
def project(tmp_path): return make_project(tmp_path/'project')

@pytest.fixture
def rlrec(capfd):
    "The command in this process: exit code, standard output, standard error"
    def run(*args):
        with pytest.raises(SystemExit) as end: command.main([str(a) for a in args])
        return end.value.code,*capfd.readouterr()
    return run

@pytest.fixture(scope='module')
def ran(tmp_path_factory):
    "A batch of which seed 0 and 4 succeed: the project, exit code and errors of `rlrec run` in a process of its own"
    root = make_project(tmp_path_factory.mktemp('ran')/'project')
    params(root, COINS.replace('[0, 1]', '[0, 1, 2, 3, 4]').replace('loaded]', 'loaded], trouble: true').replace('    parameters', '    grid: {bias: [0.9]}\n    parameters'))
    env = {k:v for k,v in os.environ.items() if k!='RLREC_QUIET'} | {'RLREC_DATA': 'downloads'}
    p = subprocess.run([*COMMAND, 'run', 'params/coins.yaml', '--jobs', '2'], cwd=root, env=env, capture_output=True, text=True)
    return root,p

def place(root, seed): return root/'reports'/'runs'/'coins'/f'{PATH}{seed}-bias=0.9'

# ------------------------------------------------------------------------------------------------ what is asked for

def test_grids_expand():
    entry = dict(report='coin', dataset=['a', 'b'], seed=[0, 1, 2], parameters=dict(tosses=5), grid=dict(policies=[['fair'], ['fair', 'loaded']], bias=[.6, .9]))
    jobs = grid.expand(entry, dict(tosses=1, trouble=False))
    assert len(jobs)==len({j.path for j in jobs})==2*3*4
    assert jobs[0].parameters==dict(dataset='a', seed=0, out='.', tosses=5, trouble=False, policies=['fair'], bias=.6)
    assert {j.variant for j in jobs}=={f'bias={b};policies={p}' for b in (.6, .9) for p in ('fair', 'fair+loaded')}
    assert 'b/seed-2-bias=0.9;policies=fair+loaded' in {j.path.removeprefix('coin/') for j in jobs}

ERRORS = [  # (what is replaced, by what), what the one line says
    (('report: coin', 'report: coim'), ":4: jobs[0].report: unknown report 'coim': did you mean 'coin'?"),
    (('report: coin', 'report: coin_summary'), "unknown report 'coin_summary'"),
    (('report: coin', 'report: unfinished'), 'has no line for dataset'),
    (('synthetic-movielens', 'synthetic-movielense'), ":5: jobs[0].dataset[0]: unknown dataset 'synthetic-movielense': did you mean 'synthetic-movielens'?"),
    (('synthetic-movielens', 'ml-20m'), 'rlrec data get ml-20m'),
    (('tosses', 'toses'), ":2: parameters.toses: unknown parameter 'toses': did you mean 'tosses'?"),
    (('policies', 'policy'), ":7: jobs[0].parameters.policy: unknown parameter 'policy': did you mean 'policies'?"),
    (('loaded', 'loadet'), "unknown value of policies 'loadet': did you mean 'loaded'?"),
    (('100', '1.5'), 'tosses must be int, not float (1.5)'),
    (('100', 'yes'), 'tosses must be int, not bool'),
    (('[fair, loaded]', 'fair'), 'policies must be list, not str'),
    (('tosses: 100', 'seed: 3'), 'seed is set by the batch'),
    (('[0, 1]', '[0, -1]'), ':6: jobs[0].seed[1]: must be a whole number of 0 or more, not -1'),
    (('[0, 1]', '[0, 0]'), 'seed-0 is already a job of jobs[0]'),
    (('[0, 1]', '[]'), 'seed is empty'),
    (('    seed: [0, 1]\n', ''), ':4: jobs[0]: seed is missing'),
    (('    seed', '    seeds'), ":6: jobs[0].seeds: unknown key 'seeds': did you mean 'seed'?"),
    (('    seed: [0, 1]', '    seed: 0\n    seed: 1'), ":7: not valid YAML: key 'seed' is given twice"),
    (('    seed', '    grid: {bias: 0.5}\n    seed'), 'a grid needs a list of values, not 0.5'),
    (('    seed', '    grid: {bias: [0.5, high]}\n    seed'), "bias must be float, not str ('high')"),
    (('    seed', '    grid: {policies: [[fair]]}\n    seed'), 'swept here and fixed'),
    (('    seed', '    limits: {minutes: 0}\n    seed'), ':6: jobs[0].limits.minutes: minutes (longest time of a job) must be a number above 0, not 0'),
    (('name: coins', 'name: coins\nlimits: {hours: 2}'), ":2: limits.hours: unknown key 'hours'"),
    (('[fair, loaded]}', '[fair, loaded'), 'not valid YAML'),
    (('name: coins', 'name: ../coins'), "'../coins' cannot name a folder"),
    (('name: coins\n', ''), 'name is missing'),
    ((COINS, ''), ':1: expected keys (name, parameters, limits, jobs), found None'),
    ((COINS, 'name: coins\njobs: []'), 'jobs is empty'),
    ((COINS, 'name: coins\njobs: {report: coin}'), ':2: jobs: must be a list of entries'),
    ((COINS, 'name: coins\njobs: [coin]'), ":2: jobs[0]: expected keys (report, dataset, seed, parameters, grid, limits), found 'coin'"),
]

@pytest.mark.parametrize('change,says', ERRORS, ids=[says[:40] for _,says in ERRORS])
def test_a_users_error_is_one_line_and_nothing_runs(project, rlrec, monkeypatch, tmp_path, change, says):
    monkeypatch.setenv('RLREC_DATA', str(tmp_path/'no-downloads'))
    code,out,err = rlrec('run', params(project, COINS.replace(*change)))
    assert (code, out, err.count('\n'))==(2, '', 1) and says in err
    assert not (project/'reports'/'runs').exists()

def test_files_that_are_not_there(project, rlrec, tmp_path):
    params(project, COINS)
    code,_,err = rlrec('run', project/'params'/'coin.yaml')
    assert code==2 and 'there is no such file' in err and 'coins.yaml' in err
    (tmp_path/'alone.yaml').write_text(COINS)
    code,_,err = rlrec('run', tmp_path/'alone.yaml')
    assert code==2 and 'no folder above this file holds reports/' in err
    assert rlrec('gallery', project)[0]==2

def test_only_picks_jobs(project):
    jobs = grid.read_batch(params(project, COINS.replace('    seed', '    grid: {bias: [1e-4, 0.5, 1]}\n    seed'))).jobs
    def seeds_and_biases(*only): return [(j.parameters['seed'], j.parameters['bias']) for j in grid.select(jobs, only)]
    assert seeds_and_biases('seed=1', 'bias=1.0')==[(1, 1)]
    assert seeds_and_biases('bias=0.0001', 'bias=0.5', 'seed=0')==[(0, .0001), (0, .5)]
    assert len(seeds_and_biases())==6 and len(seeds_and_biases('report=coin', 'policies=fair+loaded'))==6
    for only,says in {'sead=1':"unknown key 'sead': did you mean 'seed'", 'seed=2':"unknown seed '2'", 'seed':'write it as KEY=VALUE'}.items():
        with pytest.raises(ConfigError, match=re.escape(says)): grid.select(jobs, [only])

def test_unknown_options_and_help(rlrec):
    assert rlrec('run', 'params/quick.yaml', '--engin', 'x')[0]==2
    assert rlrec('run', 'params/quick.yaml', '--jobs', '0')[0]==2
    code,out,_ = rlrec('--help')
    assert code==0 and all(c in out for c in ('run', 'list', 'data', 'gallery', 'bench'))

def test_data_commands(rlrec):
    code,out,_ = rlrec('data', 'list')
    assert code==0 and 'synthetic-movielens' in out and 'ml-1m' in out
    code,out,_ = rlrec('data', 'check', 'synthetic-movielens')
    assert code==0 and 'density' in out
    code,_,err = rlrec('data', 'check', 'synthetic-movielense')
    assert code==2 and "did you mean 'synthetic-movielens'" in err

# ------------------------------------------------------------------------------------------------ what runs

def test_a_failing_job_does_not_stop_the_others(ran):
    root,p = ran
    found = {r['seed']: r for r in records.records(root/'reports'/'runs'/'coins')}
    assert p.returncode==1 and '3 failed' in p.stderr
    assert {s: r['state'] for s,r in found.items()}=={0:'done', 1:'failed', 2:'failed', 3:'failed', 4:'done', None:'done'}
    assert found[1]['error']=='ValueError: <b>the coin</b> fell off the table'
    assert found[2]['error'].startswith("the job's process was ended by SIGKILL")
    assert found[3]['error']=="rows.parquet says seed 0, but the job's is 3"
    assert 'fell off' in (place(root, 1)/'report.ipynb').read_text() and (place(root, 1)/'report.html').exists()
    assert not list((root/'reports'/'runs'/'coins').rglob('.*')) and not [s for s in (1, 2, 3) if (place(root, s)/'rows.parquet').exists()]

def test_every_job_says_what_it_was(ran):
    root,_ = ran
    record = json.loads((place(root, 4)/'run.json').read_text())
    assert record['parameters']==dict(dataset='synthetic-movielens', seed=4, out='.', tosses=100, bias=.9, policies=['fair', 'loaded'], trouble=True)
    assert record['seconds']>0 and 2**24<record['peak_memory']<2**33 and record['versions']['rlrec'] and len(record['key'])==16 and record['fingerprint']
    assert record['key']!=json.loads((place(root, 0)/'run.json').read_text())['key']

def test_seeds_are_echoed_and_variants_stamped(ran):
    rows = results.rows(ran[0]/'reports'/'runs'/'coins')
    assert set(rows.seed)=={0, 4} and set(rows.variant)=={'bias=0.9'} and len(rows)==2*2*2
    assert rows.groupby('seed').value.nunique().min()==2 and rows.query('seed==0').value.tolist()!=rows.query('seed==4').value.tolist()
    assert '[0, 4]' in (ran[0]/'reports'/'runs'/'coins'/'coin_summary'/'report.ipynb').read_text()

def test_the_kernel_is_ours(ran):
    nb = nbformat.read(place(ran[0], 0)/'report.ipynb', 4)
    executable,env,data = nb.cells[-1].outputs[0].text.splitlines()
    assert (executable, env)==(sys.executable, "['1', '1', '1', '1', 'false']")
    assert data==str((ran[0]/'downloads').resolve())   # a relative folder still means the same

def test_progress_is_lines_where_there_is_no_terminal(ran):
    lines = ran[1].stderr.splitlines()
    assert '\r' not in ran[1].stderr and [l[:5] for l in lines[:5]]==[f'[{i}/5]' for i in range(1, 6)]
    assert any('failed coin/synthetic-movielens/seed-1-bias=0.9' in l for l in lines)

def test_the_pages_of_a_batch_stand_alone(ran, tmp_path):
    moved = shutil.copytree(ran[0]/'reports'/'runs'/'coins', tmp_path/'elsewhere')
    pages = {p: p.read_text() for p in moved.rglob('*.html')}
    assert len(pages)==1+4+1   # the index, four jobs whose worker lived, the summary
    for p,html in pages.items():
        assert not re.findall(r"""<(?:script|link|img|iframe|source)\b[^>]*(?:src|href)=["']?(?:https?:)?//|@import|url\(["']?(?:https?:)?//|import\(""", html), p
    links = re.findall(r'(?:href|src)="([^"#]+)"', pages[moved/'index.html'])
    assert links and all((moved/unquote(l)).exists() for l in links)

def test_list_knows_the_states(ran, rlrec):
    code,out,_ = rlrec('list', ran[0]/'params'/'coins.yaml')
    assert code==0 and [l.split()[0] for l in out.splitlines()[:-1]]==['done', 'failed', 'failed', 'failed', 'done'] and out.splitlines()[-1].startswith('5 jobs: 2 done, 3 failed')

def test_parallel_and_serial_give_the_same_rows(ran, tmp_path, rlrec):
    twin = make_project(tmp_path/'twin')
    (twin/'reports'/'coin_summary.ipynb').unlink()
    grid = (ran[0]/'params'/'coins.yaml').read_text()
    assert rlrec('run', params(twin, grid), '--only', 'seed=0', '--only', 'seed=4')[0]==0
    for seed in 0,4: assert (place(twin, seed)/'rows.parquet').read_bytes()==(place(ran[0], seed)/'rows.parquet').read_bytes()
    # a grid with other seeds: what is no longer part of it is set aside, what was not asked for is kept
    code,_,err = rlrec('run', params(twin, grid.replace('[0, 1, 2, 3, 4]', '[4, 5]')), '--only', 'seed=5')
    runs = twin/'reports'/'runs'
    assert code==0 and set(results.rows(runs/'coins').seed)=={4, 5} and (runs/'coins.set-aside'/f'{PATH}0-bias=0.9').exists() and 'moved' in err

def split_batch(project, jobs): # jobs of `coin` whose template also has split and ratio, as reports on real data have
    cells = [COIN[0]+"\nsplit: str = 'time'  # how\nratio: float = 0.8  # how much", *COIN[1:3]]
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells], metadata=dict(kernelspec=dict(name='python3', language='python', display_name='python3')))
    nb.cells[0].metadata['tags'] = ['parameters']
    nbformat.write(nb, project/'reports'/'coin.ipynb')
    return grid.read_batch(params(project, COINS.replace('[0, 1]', '[0]').replace('    seed', f'    {jobs}\n    seed')))

def test_the_facts_are_those_of_the_data_that_a_job_loads(project):
    b = split_batch(project, 'grid: {ratio: [0.5, 0.8], split: [time, user]}')
    assert command.run_batch(b)=={}
    done = {(r['parameters']['split'], r['parameters']['ratio']): r for r in records.records(b.folder) if r['seed'] is not None}
    assert len(done)==len({r['fingerprint'] for r in done.values()})==4
    for (split, ratio),r in done.items():
        card = catalogue.load('synthetic-movielens', split=split, ratio=ratio).card()
        assert {k: r['card'][k] for k in ('train', 'test', 'both_sides')}=={k: card[k] for k in ('train', 'test', 'both_sides')}

def test_a_job_that_does_not_split_has_the_plain_facts(project):
    b = split_batch(project, 'grid: {tosses: [1]}')
    assert records.data_of(b.jobs[0])==(('dataset', 'synthetic-movielens'),)
    b = split_batch(project, 'grid: {ratio: [2]}')
    with pytest.raises(ConfigError, match='ratio must be'): command.run_batch(b)   # found before the first job
    assert not b.folder.exists()

def test_a_summary_is_made_again_when_a_relative_ran(project, rlrec):
    "coin_summary is about coin and coin_grid: it runs after either, if coins are finished, and after nothing else"
    for name in 'coin_grid','coins':
        nb = nbformat.read(project/'reports'/'coin.ipynb', 4)
        for c in nb.cells: c.source = c.source.replace("report='coin'", f"report='{name}'")
        nbformat.write(nb, project/'reports'/f'{name}.ipynb')
    entry = lambda report: f'  - report: {report}\n    dataset: synthetic-movielens\n    seed: 0\n'
    file,summary = params(project, 'name: coins\njobs:\n'+''.join(map(entry, ('coin', 'coin_grid', 'coins')))),project/'reports'/'runs'/'coins'/'coin_summary'/'run.json'
    def only(report):
        before = summary.stat().st_mtime_ns
        nb = nbformat.read(project/'reports'/f'{report}.ipynb', 4)
        nb.cells[2].source = nb.cells[2].source.replace('random(tosses)', 'random(tosses)**2')   # other coins: the rows change
        nbformat.write(nb, project/'reports'/f'{report}.ipynb')
        assert rlrec('run', file, '--only', f'report={report}')[0]==0
        return summary.stat().st_mtime_ns>before
    assert rlrec('run', file, '--only', 'report=coin_grid')[0]==0 and not summary.exists()   # there is nothing to join yet
    assert rlrec('run', file, '--only', 'report=coin')[0]==0 and json.loads(summary.read_text())['state']=='done'
    assert only('coin_grid') and not only('coins')
    grid = params(project, 'name: coins\njobs:\n'+entry('coin_grid'), 'grid.yaml')
    assert rlrec('run', grid)[0]==0 and 'coin_summary' not in (project/'reports'/'runs'/'coins'/'index.html').read_text()

def test_the_cohort_is_no_policy():
    rows = pd.DataFrame([dict(report='r', dataset='d', seed=s, policy=p, variant='', metric=m, step=None, value=v, n=9)
                         for s in (0, 1) for p,m,v in [('cohort', 'cohort_size', 1122.), ('dqn', 'reward', 2.+s), ('random', 'reward', 1.+s)]])
    table, = results.tables(rows)
    assert (table['facts'], table['metrics'], [names for names,_ in table['lines']])==(['cohort size 1,122'], ['reward'], [['dqn'], ['random']])

def test_ctrl_c_keeps_what_finished(project):
    file = params(project, COINS.replace('coin\n', 'nap\n').replace('loaded', 'fair'))
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)      # a test run that was started in the background ignores it
    p = subprocess.Popen([*COMMAND, 'run', str(file), '--jobs', '2'], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed)
    runs,deadline = project/'reports'/'runs'/'coins'/'nap'/'synthetic-movielens',time.time()+120
    while not ((runs/'seed-0').exists() and list(runs.glob('.seed-1.*.tmp/rows.parquet'))) and time.time()<deadline: time.sleep(.1)
    family = psutil.Process(p.pid).children(recursive=True)
    p.send_signal(signal.SIGINT)
    _,err = p.communicate(timeout=120)
    assert p.returncode==130 and 'interrupted' in err
    assert sorted(x.name for x in runs.iterdir())==['seed-0'] and '1 missing' in (project/'reports'/'runs'/'coins'/'index.html').read_text()
    assert len(family)>=3 and not psutil.wait_procs(family, timeout=30)[1]
