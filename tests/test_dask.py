"Batches on Dask: a scheduler and workers as processes on loopback, some of which are killed; a Slurm cluster that is none; what Kubernetes would be asked for"
import json,os,runpy,signal,subprocess,sys,time
from pathlib import Path
import psutil, pytest, yaml
from rlrec.batch.command import main
from rlrec.batch.grid import write_template
from rlrec.batch.records import read_json,records

ROOT = Path(__file__).parent.parent
PYTHON,RLREC = sys.executable,[sys.executable, '-c', 'from rlrec.batch.command import main; main()']
CELLS = ['''dataset: str = 'synthetic-movielens'  # not used
seed: int = 0  # the experiment's seed
out: str = ''  # folder for rows
nap: float = 0.0  # seconds of rest''',
'''import time
import pyarrow as pa, pyarrow.parquet as pq
from rlrec.core import phase,stream
phase('resting'); time.sleep(nap)
row = dict(report='die', dataset=dataset, seed=seed, policy='fair', variant='', metric='mean', step=None, value=stream(seed, 'die').integers(1, 7, 60).mean(), n=60)
pq.write_table(pa.Table.from_pylist([row]), f'{out}/rows.parquet')''']

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group('dask')]   # a busy machine takes long; one process makes the cluster once

def project(folder, seeds=(0, 1, 2, 3), nap=0.):
    "A project with one report, the batch file, and the folder of its results"
    write_template(folder/'reports'/'die.ipynb', CELLS)
    (folder/'params').mkdir()
    file = folder/'params'/'dice.yaml'
    file.write_text(yaml.safe_dump(dict(name='dice', parameters=dict(nap=nap), jobs=[dict(report='die', dataset='synthetic-movielens', seed=list(seeds))])))
    return file,folder/'reports'/'runs'/'dice'

def run(*args):
    "The exit code of `rlrec` in this process"
    with pytest.raises(SystemExit) as end: main([str(a) for a in args])
    return end.value.code or 0

def rows(folder): return {p.parent.name: p.read_bytes() for p in folder.glob('die/*/seed-*/rows.parquet')}

def wait(what, seconds=300, every=.05):
    "What `what` returns, when that is something"
    end = time.monotonic()+seconds
    while not (found := what()):
        assert time.monotonic()<end, 'waited in vain'
        time.sleep(every)
    return found

def tree(process):
    try: return [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess: return []

def kill(process):
    for p in tree(process):
        try: p.kill()
        except psutil.NoSuchProcess: pass
    process.wait()

@pytest.fixture(scope='module')
def processes():
    "A function that starts a process; all of them are killed in the end, with all that they have started"
    started = []
    def start(*command, **kw):
        started.append(subprocess.Popen([str(c) for c in command], **kw))
        return started[-1]
    yield start
    for p in started: kill(p)

@pytest.fixture(scope='module')
def cluster(processes, tmp_path_factory):
    "Scheduler, its address, and two workers"
    folder = tmp_path_factory.mktemp('cluster')
    with open(folder/'log.txt', 'w') as log:
        quiet = dict(stdout=log, stderr=log)
        scheduler = processes(PYTHON, '-m', 'distributed.cli.dask_scheduler', '--host', '127.0.0.1', '--port', 0, '--no-dashboard', '--scheduler-file', folder/'scheduler.json', **quiet)
        address = wait(lambda: read_json(folder/'scheduler.json').get('address'))   # empty or half-written at first
        workers = [processes(PYTHON, '-m', 'distributed.cli.dask_worker', address, '--nthreads', 1, '--memory-limit', 0, '--no-dashboard', '--local-directory', folder/str(i), **quiet) for i in range(2)]
    return scheduler,address,workers

@pytest.fixture(scope='module')
def reference(tmp_path_factory):
    "Rows of four seeds, one after the other on this machine"
    file,runs = project(tmp_path_factory.mktemp('reference'))
    assert run('run', file)==0 and len(rows(runs))==4
    return rows(runs)

def resting(runs): return [p.parent for p in runs.glob('die/*/.*.tmp/phase.txt')]   # folders of the jobs under way that are at their nap

def works_in(folder): # somebody else does
    for p in psutil.process_iter():
        if p.pid==os.getpid(): continue
        try:
            if str(folder) in ' '.join(p.cmdline()) or p.cwd().startswith(str(folder)): return True
        except psutil.Error: pass
    return False

# ------------------------------------------------------------------------------------------------ the same rows everywhere

@pytest.mark.parametrize('engine', [['--jobs', 2], ['--engine', 'dask', '--jobs', 2]], ids=['local', 'dask'])
def test_two_at_a_time_give_the_same_rows(reference, tmp_path, engine):
    file,runs = project(tmp_path)
    assert run('run', file, '--only', 'seed=1', '--only', 'seed=2', *engine)==0
    assert rows(runs)=={s: reference[s] for s in ('seed-1', 'seed-2')}

def test_a_worker_that_is_killed_costs_nothing(reference, cluster, processes, tmp_path):
    "It dies with its nanny, its job and the job's kernel, as when a machine is lost"
    _,address,workers = cluster
    file,runs = project(tmp_path, nap=1.)
    command = processes(*RLREC, 'run', file, '--engine', 'dask', '--scheduler', address, stderr=subprocess.PIPE, text=True)
    folder = wait(lambda: resting(runs))[0]
    victim = next(w for w in workers if any(str(folder) in ' '.join(p.cmdline()) for p in tree(w)))
    kill(victim)
    said = command.communicate(timeout=300)[1]
    assert command.returncode==0 and 'failed' not in said, said
    assert {r['state'] for r in records(runs)}=={'done'} and rows(runs)==reference
    assert not list(runs.rglob('.*.tmp')) and wait(lambda: not works_in(tmp_path)) and sum(w.poll() is None for w in workers)==1

# ------------------------------------------------------------------------------------------------ no scheduler

def test_a_scheduler_that_goes_away_ends_the_run_and_the_next_goes_on(reference, cluster, processes, tmp_path):
    scheduler,address,_ = cluster
    file,runs = project(tmp_path, seeds=(2, 3), nap=2.)
    command = processes(*RLREC, 'run', file, '--engine', 'dask', '--scheduler', address, stderr=subprocess.PIPE, text=True)
    wait(lambda: rows(runs) and resting(runs))
    scheduler.kill()
    said = command.communicate(timeout=300)[1].splitlines()
    assert command.returncode==2 and len(said)==1 and address in said[0] and 'what has finished is kept' in said[0], said
    kept = {p: p.stat().st_mtime_ns for p in runs.glob('die/*/seed-*/rows.parquet')}
    assert len(kept)==1
    wait(lambda: not works_in(tmp_path))
    assert run('run', file, '--jobs', 2)==0
    assert rows(runs)=={f'seed-{s}': reference[f'seed-{s}'] for s in (2, 3)} and all(p.stat().st_mtime_ns==t for p,t in kept.items())

def test_a_scheduler_that_is_not_there(tmp_path, capfd):
    file,runs = project(tmp_path)
    assert run('run', file, '--engine', 'dask', '--scheduler', 'tcp://127.0.0.1:9')==2
    said = capfd.readouterr().err
    assert said.count('\n')==1 and said.startswith('--scheduler tcp://127.0.0.1:9: no scheduler answers') and not list(runs.rglob('rows.parquet'))

def test_without_dask_the_package_that_is_missing_is_named(tmp_path, capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, 'distributed', None)
    assert run('run', project(tmp_path)[0], '--engine', 'dask')==2
    assert capfd.readouterr().err=="--engine dask: Dask is not installed; pip install 'rlrec[dask]'\n"

# ------------------------------------------------------------------------------------------------ clusters

SBATCH = """#!/usr/bin/env bash
if [ "$1" = --test-only ]; then cat > "$SLURM/asked"; exit; fi
cp "$1" "$SLURM/script"
setsid bash "$SLURM/script" > "$SLURM/log" 2>&1 < /dev/null &
echo "Submitted batch job $!"; echo "$!" >> "$SLURM/jobs"
"""
SCANCEL = """#!/usr/bin/env bash
kill -KILL -- "-$1"; echo "$1" >> "$SLURM/cancelled"
"""

@pytest.fixture
def script(monkeypatch):
    "A function that runs a script of params/ as the main program; returns its exit code"
    def run_script(name, *args):
        monkeypatch.setattr(sys, 'argv', [name, *map(str, args)])
        with pytest.raises(SystemExit) as end: runpy.run_path(str(ROOT/'params'/name), run_name='__main__')
        return end.value.code or 0
    return run_script

@pytest.fixture
def slurm(tmp_path, monkeypatch):
    "The folder of a Slurm cluster of one machine, this one"
    for name,text in dict(sbatch=SBATCH, scancel=SCANCEL).items(): (tmp_path/name).write_text(text); (tmp_path/name).chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}'); monkeypatch.setenv('SLURM', str(tmp_path)); monkeypatch.chdir(tmp_path)
    return tmp_path

def test_a_batch_runs_on_slurm(reference, slurm, script, capfd):
    "As far as a Slurm that runs everything at once can tell: workers are submitted with their limits, do the batch, and are cancelled in the end"
    file,runs = project(slurm, seeds=[3])
    assert script('cluster_slurm.py', file, '--workers', 1, '--memory', '3GiB', '--hours', 5, '--queue', 'long')==0
    assert rows(runs)=={'seed-3': reference['seed-3']}
    job = (slurm/'script').read_text()
    assert all(f'#SBATCH {o}\n' in job for o in ('-n 1', '--cpus-per-task=1', '--mem=3G', '-t 5:00:00', '-p long')) and '--nthreads 1' in job
    assert job.splitlines()[:9]==(slurm/'asked').read_text().splitlines()[:9]
    assert (slurm/'cancelled').read_text()==(slurm/'jobs').read_text() and wait(lambda: not works_in(slurm))

def test_what_slurm_refuses_is_said_in_its_words(slurm, script, capfd):
    (slurm/'sbatch').write_text('#!/bin/sh\necho "sbatch: error: invalid partition specified: nope" >&2\nexit 1\n')
    assert script('cluster_slurm.py', 'dice.yaml')==2 and capfd.readouterr().err=='sbatch: error: invalid partition specified: nope\n'
    (slurm/'sbatch').unlink()
    assert script('cluster_slurm.py', 'dice.yaml')==2 and 'no sbatch on this machine' in capfd.readouterr().err

def test_what_kubernetes_is_asked_for(tmp_path, monkeypatch):
    "Workers of one thread that stand in the project's folder, on the shared volume, and know where the data are"
    monkeypatch.setenv('RLREC_DATA', f'{tmp_path}/downloads'); monkeypatch.chdir(tmp_path)
    asked = runpy.run_path(str(ROOT/'params'/'cluster_kubernetes.py'))['specification']('rlrec-1', 'rlrec:0.1.0', 'projects', str(tmp_path.parent), 20, '3Gi')
    assert json.loads(json.dumps(asked))==asked and (asked['kind'], asked['metadata'])==('DaskCluster', dict(name='rlrec-1'))
    pods = {k: asked['spec'][k]['spec'] for k in ('scheduler', 'worker')}
    for name,pod in pods.items():
        container, = pod['containers']
        assert (container['name'], container['image'], container['workingDir'])==(name, 'rlrec:0.1.0', str(tmp_path))
        assert dict(name='RLREC_DATA', value=f'{tmp_path}/downloads') in container['env'] and container['volumeMounts']==[dict(name='project', mountPath=str(tmp_path.parent))]
        assert pod['volumes']==[dict(name='project', persistentVolumeClaim=dict(claimName='projects'))]
    worker, = pods['worker']['containers']
    assert asked['spec']['worker']['replicas']==20 and '--nthreads 1' in ' '.join(worker['args']) and worker['resources']['limits']==dict(memory='3Gi')
    assert {p['name']: p['port'] for p in asked['spec']['scheduler']['service']['ports']}=={p['name']: p['containerPort'] for p in pods['scheduler']['containers'][0]['ports']}

@pytest.mark.parametrize('name,module,args', [('cluster_slurm.py', 'dask_jobqueue', []), ('cluster_kubernetes.py', 'dask_kubernetes', ['image', 'claim'])], ids=['slurm', 'kubernetes'])
def test_a_cluster_whose_package_is_missing_names_it(script, capfd, monkeypatch, name, module, args):
    monkeypatch.setitem(sys.modules, module, None)
    assert script(name, 'dice.yaml', *args)==2
    said = capfd.readouterr().err
    assert said.count('\n')==1 and 'pip install' in said and module.replace('_', '-') in said
