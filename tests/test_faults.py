"Faults, by doing them: processes are killed, disks fill up, files are damaged while the real command runs; what comes out is compared with an undisturbed run"
import contextlib,json,os,random,shutil,signal,subprocess,sys,time
from pathlib import Path
import psutil, pyarrow.parquet as pq, pytest
import rlrec
from rlrec.batch.grid import write_template
from rlrec.batch.records import source_hash,standing

pytestmark = pytest.mark.xdist_group('faults')   # one process makes the batches that the tests share once

# ------------------------------------------------------------------------------------------------ the project

COUNT = ['''dataset: str = 'synthetic-movielens'  # not used
seed: int = 0  # of the numbers that are summed
out: str = ''  # folder for the rows
steps: int = 20  # how many sums
nap: float = 0.05  # seconds of rest after each
mode: str = ''  # what goes wrong half-way''',
'''import json,os,resource,signal,time
from pathlib import Path
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
from rlrec.core import checkpoint_dir,phase,whole_file
side,journal = Path(os.environ['SIDE']),f'steps-{seed}-{mode}'  # what the tests see of this report
mode = mode or os.environ.get('MODE', '')

def first():  # is this the first time?
    try: (side/f'{mode}-{seed}').touch(exist_ok=False)
    except FileExistsError: return False
    return True

def hold():  # until the test goes on
    (side/f'held-{seed}').touch()
    while not (side/'go').exists(): time.sleep(.05)

def fill():  # the disk
    with open('../../../../ballast', 'wb') as f:
        try:
            while True: f.write(b'x'*4096); f.flush()
        except OSError: pass''',
'''def trouble():
    if mode=='worker-always' or mode=='worker-once' and first():
        os.kill(os.getppid(), signal.SIGKILL)
        if mode=='worker-always': time.sleep(60)
    if mode=='kernel-always': os.kill(os.getpid(), signal.SIGKILL)
    if mode=='kernel-once' and first(): os._exit(1)
    if mode=='hoard': hoard = np.ones(600*2**17); hold()
    if mode=='limited':
        resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33)); np.ones(2**31)
    if mode in ('hold', f'hold-{seed}'): hold()
    if mode==f'fill-{seed}': fill()''',
'''rng,total,done,state = np.random.default_rng(seed),0.,0,checkpoint_dir('count')/'state.json'
if state.exists(): rng.bit_generator.state,total,done = json.loads(state.read_text())
for step in range(done, steps):
    if step==steps//2: trouble()
    total += float(rng.normal(size=100).sum())
    with open(side/journal, 'a') as f: f.write(f'{os.getpid()} {step}\\n')
    with whole_file(state) as f: f.write_text(json.dumps([rng.bit_generator.state, total, step+1]))
    phase(f'counting {100*(step+1)//steps} %')
    time.sleep(nap)''',
'''row = dict(report='count', dataset=dataset, seed=seed, policy='sum', variant='', metric='total', step=None, value=total, n=steps)
pq.write_table(pa.table({k: pa.array([v], pa.int64() if k=='step' else None) for k,v in row.items()}), Path(out)/'rows.parquet')''']
SUMMARY = ["folder: str = ''  # the batch\nout: str = ''  # folder for the sum",
'''import time
from pathlib import Path
import pyarrow.parquet as pq
time.sleep(.5)
values = [v for p in sorted(Path(folder).glob('count/*/*/rows.parquet')) for v in pq.read_table(p)['value'].to_pylist()]
Path(out, 'sum.txt').write_text(repr(values))''']
SEEDS = 0,1,2
JOBS = 'count/synthetic-movielens'

class Project:
    "A folder with the report `count`, its summary and one batch file"
    def __init__(self, root, seeds=SEEDS, summary=False, made=False):
        self.root,self.side,self.runs = root,root/'side',root/'reports'/'runs'/'sums'
        if made: return
        for folder in self.side,root/'params': folder.mkdir(parents=True)
        self.write(f"name: sums\njobs:\n  - report: count\n    dataset: synthetic-movielens\n    seed: {list(seeds)}\n")
        write_template(root/'reports'/'count.ipynb', COUNT)
        if summary: write_template(root/'reports'/'count_summary.ipynb', SUMMARY)
    def write(self, text): (self.root/'params'/'sums.yaml').write_text(text)
    def job(self, seed, variant=''): return self.runs/JOBS/f'seed-{seed}{variant}'
    def record(self, seed, variant=''): return json.loads((self.job(seed, variant)/'run.json').read_text())
    def rows(self): return {p.relative_to(self.runs).as_posix(): p.read_bytes() for p in sorted(self.runs.glob('count/*/[!.]*/rows.parquet'))}
    def steps(self, seed, mode=''): return [tuple(map(int, l.split())) for l in (self.side/f'steps-{seed}-{mode}').read_text().splitlines()]  # (process, step)
    def attempts(self): return list(self.runs.glob(f'{JOBS}/.*.tmp'))

@pytest.fixture
def make(tmp_path): return lambda name='project', **kw: Project(tmp_path/name, **kw)

# ------------------------------------------------------------------------------------------------ the command

COLD = 'from rlrec.batch.command import main; main()'
WARM = '''import json,os,signal,sys
from rlrec.batch.command import main
for line in sys.stdin:  # start the command as a copy of this process, which has imported everything, or tell how one has ended
    told = json.loads(line)
    if 'wait' in told: print(os.waitstatus_to_exitcode(os.waitpid(told['wait'], 0)[1]), flush=True); continue
    if pid := os.fork(): print(pid, flush=True); continue
    os.setsid(); os.chdir(told['cwd']); os.environ.update(told['env']); signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream,path in enumerate([os.devnull, told['out'], told['err']]): os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC), stream)
    main(told['args'])
    sys.exit(0)'''

def until(true, what, seconds=120, pause=.05):
    "Wait until something is true; this is patience, not a measurement"
    end = time.monotonic()+seconds
    while not (value := true()):
        assert time.monotonic()<end, f'waited in vain: {what}'
        time.sleep(pause)
    return value

def heed(): signal.signal(signal.SIGINT, signal.default_int_handler)   # a test run that was started in the background ignores it

class Run:
    "A process of the command; those that it starts have the project's SIDE in their environment"
    count = 0
    def __init__(self, project, args, env, start):
        Run.count += 1
        self.project,self.files,self.code = project,[project.root/f'{x}-{Run.count}' for x in ('out', 'err')],None
        self.pid,self.wait_for = start(project.root, args, {'SIDE': str(project.side), **env}, self.files)
    def alive(self):
        try: return psutil.Process(self.pid).status()!=psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess: return False
    def wait(self):  # exit code, standard output, standard error
        if self.code is None:
            until(lambda: not self.alive(), 'the command ends', 240)
            self.code = self.wait_for()
        return self.code,*(f.read_text() for f in self.files)
    def kill(self):
        with contextlib.suppress(ProcessLookupError): os.kill(self.pid, signal.SIGKILL)
        return self.wait()[0]
    def family(self):  # those
        found = []
        for p in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if p.pid!=self.pid and p.environ().get('SIDE')==str(self.project.side) and p.status()!=psutil.STATUS_ZOMBIE: found.append(p)
        return found
    def nobody_left(self): until(lambda: not self.family(), 'all processes of the run end', 60)

@pytest.fixture(scope='module')
def command():
    "A function that starts `rlrec` for a project: cold, or as a copy of a process that has imported everything"
    env = {k:v for k,v in os.environ.items() if k!='RLREC_QUIET'}
    nursery = subprocess.Popen([sys.executable, '-c', WARM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
    begun = []
    def ask(**told):
        print(json.dumps(told), file=nursery.stdin, flush=True)
        return int(nursery.stdout.readline())
    def warm(cwd, args, more, files):
        pid = ask(cwd=str(cwd), args=args, env=more, out=str(files[0]), err=str(files[1]))
        return pid,lambda: ask(wait=pid)
    def cold(cwd, args, more, files):
        with open(files[0], 'w') as out, open(files[1], 'w') as err:
            p = subprocess.Popen([sys.executable, '-c', COLD, *args], cwd=cwd, env=env | more, stdout=out, stderr=err, start_new_session=True, preexec_fn=heed)
        return p.pid,p.wait
    def start(project, *args, imported=True, **more):
        begun.append(Run(project, args or ('run', 'params/sums.yaml', '--jobs', '2'), more, warm if imported else cold))
        return begun[-1]
    yield start
    for r in begun:
        if r.alive(): r.kill()
        for p in r.family(): p.kill()
    nursery.stdin.close(); nursery.wait()

@pytest.fixture
def say(command):
    "Run the command to its end: exit code, standard output, standard error"
    return lambda project, *args, **env: command(project, *args, **env).wait()

def one_line(err): return err.count('\n')==1 and 'Traceback' not in err

@pytest.fixture(scope='module')
def calm(tmp_path_factory, command):
    "The undisturbed run"
    project = Project(tmp_path_factory.mktemp('calm')/'project', summary=True)
    code,_,err = command(project, imported=False).wait()
    assert code==0 and len(project.rows())==len(SEEDS), err
    assert all([s for _,s in project.steps(i)]==list(range(20)) for i in SEEDS)
    return project

def whole(project):
    "Whatever has its name is complete: rows can be read, records are final, pages have an end"
    for p in project.runs.rglob('rows.parquet'):
        if not hidden(p, project): pq.read_table(p)
    for p in project.runs.rglob('run.json'):
        if not hidden(p, project): assert json.loads(p.read_text())['state'] in ('done', 'failed'), p
    for p in project.runs.rglob('*.html'):
        if not hidden(p, project): assert p.read_text().rstrip().endswith('</html>'), p
    if (project.runs/'batch.json').exists(): json.loads((project.runs/'batch.json').read_text())

def hidden(p, project): return any(part[0]=='.' for part in p.relative_to(project.runs).parts)

def left(project):
    "What is temporary"
    return [str(p) for p in project.runs.parent.rglob('.*') if p.name.endswith(('.tmp', '.old')) or p.name in ('.templates', '.sums.json')]

def same_as(calm, project):
    "The rows of the undisturbed run, byte for byte; the same records, times aside; the same summary, if there is one"
    assert project.rows()==calm.rows() and not left(project), left(project)
    for seed in SEEDS:
        ours,theirs = ({k: p.record(seed)[k] for k in ('state', 'error', 'key', 'parts', 'rows')} for p in (project, calm))
        assert ours==theirs
    if (project.root/'reports'/'count_summary.ipynb').exists(): assert (project.runs/'count_summary'/'sum.txt').read_text()==(calm.runs/'count_summary'/'sum.txt').read_text()

def went_on(project, seed, mode=''):
    "Each process went on where its forerunner had stopped: a step is done again only if the end came between the step and its checkpoint"
    steps = project.steps(seed, mode)
    processes = list(dict.fromkeys(pid for pid,_ in steps))
    assert [pid for pid,_ in steps]==sorted([pid for pid,_ in steps], key=processes.index), steps   # one after the other
    assert {s for _,s in steps}==set(range(20)) and len(steps)-20<len(processes), steps
    return len(processes)

# ------------------------------------------------------------------------------------------------ the parent is killed

def state_of(folder):
    try: return json.loads((folder/'run.json').read_text())['state']
    except (OSError, ValueError): return None

MOMENTS = {   # what has to be seen, and how long after it the kill may come at the latest
    'importing': (lambda p: True, 3.),
    'beginning': (lambda p: (p.runs.parent/'.sums.json').exists(), 3.),
    'working': (lambda p: any((a/'phase.txt').exists() for a in p.attempts()), 1.),
    'finishing': (lambda p: any(state_of(a)=='done' for a in p.attempts()), .05),
    'summing': (lambda p: any(p.runs.glob('.count_summary.*.tmp')), 1.5),
    'ending': (lambda p: (p.runs/'count_summary').exists(), .1),
}

@pytest.mark.timeout(900)
def test_the_parent_killed_at_20_moments(calm, command, tmp_path):
    "After the last job of a batch is killed too, another begins; each gives the rows of the undisturbed run"
    draw = random.Random(6)
    jobs,sums,kills = ['importing']*5 + ['beginning']*4 + ['working']*5 + ['finishing']*2,['summing']*3 + ['ending'],0
    draw.shuffle(jobs)
    projects = [Project(tmp_path/'0', summary=True)]
    while kills<20:
        project = projects[-1]
        kinds = sums if sums and len(project.rows())==len(SEEDS) or not jobs else jobs
        seen,most = MOMENTS[kinds[0]]
        run = command(project, imported=kinds[0]!='importing')
        until(lambda: seen(project) or not run.alive(), kinds[0], pause=.005)
        time.sleep(draw.uniform(0, most))
        if run.kill()==-signal.SIGKILL: kills += 1; kinds.pop(0)
        else:  # it had ended before
            assert run.code==0, run.wait()
            same_as(calm, project); projects.append(Project(tmp_path/f'{len(projects)}', summary=True))
        if draw.random()<.5: run.nobody_left(); whole(project)       # else: started again at once, while the last one's processes are still there
    code,_,err = command(projects[-1]).wait()
    assert code==0, err
    run.nobody_left()
    for project in projects: whole(project); same_as(calm, project)
    assert max(went_on(project, seed) for project in projects for seed in SEEDS)>1

# ------------------------------------------------------------------------------------------------ jobs die

TROUBLE = """name: sums
jobs:
  - report: count
    dataset: synthetic-movielens
    seed: 0
    limits: {memory: 0.5}
    grid: {mode: [worker-once, worker-always, kernel-once, kernel-always, hoard, limited, fine]}
  - report: count
    dataset: synthetic-movielens
    seed: 1
    parameters: {mode: hold}
    limits: {minutes: 0.1}
"""

@pytest.fixture(scope='module')
def troubled(tmp_path_factory, command):
    "A batch in which all this happens: the project, and what the command said"
    project = Project(tmp_path_factory.mktemp('troubled')/'project')
    project.write(TROUBLE)
    run = command(project)
    code,_,err = run.wait()
    run.nobody_left(); whole(project)
    assert code==1 and '5 failed' in err and not left(project), err
    return project,err

def of(troubled, mode):  # state, error, and how many processes counted
    project,err = troubled
    folder,(state,error) = project.job(0, f'-mode={mode}'),[project.record(0, f'-mode={mode}')[k] for k in ('state', 'error')]
    assert (folder/'rows.parquet').exists()==(state=='done') and (error in err) and (state=='done' or f'count/synthetic-movielens/seed-0-mode={mode}' in err.splitlines()[-1])
    return state,error,len({pid for pid,_ in project.steps(0, mode)})

def test_a_killed_worker_is_replaced_once(troubled):
    assert of(troubled, 'worker-once')==('done', '', 2)
    assert of(troubled, 'worker-always')==('failed', "the job's process was ended by SIGKILL", 1)   # the second goes on at the step that kills it
    went_on(troubled[0], 0, 'worker-once')

def test_a_dead_kernel_is_replaced_once(troubled):
    assert of(troubled, 'kernel-once')==('done', '', 2)
    state,error,_ = of(troubled, 'kernel-always')
    assert state=='failed' and 'the kernel died twice' in error
    went_on(troubled[0], 0, 'kernel-once')

def test_out_of_memory(troubled):
    assert of(troubled, 'hoard')[:2]==('failed', 'needed more than 512 MiB of memory (limits: memory)')
    state,error,_ = of(troubled, 'limited')
    assert state=='failed' and 'MemoryError: Unable to allocate 16.0 GiB' in error

def test_the_others_finish(troubled, calm):
    assert of(troubled, 'fine')[0]=='done'
    values = {pq.read_table(p)['value'].to_pylist()[0] for p in troubled[0].runs.glob('count/*/seed-0-*/rows.parquet')}
    assert values=={pq.read_table(calm.job(0)/'rows.parquet')['value'].to_pylist()[0]}

def test_a_job_past_its_time_goes_on_when_it_gets_more(troubled, calm, say):
    project,err = troubled
    assert project.record(1)['state']=='failed' and project.record(1)['error']=='took longer than 6 s (limits: minutes)' and not (project.job(1)/'rows.parquet').exists()
    (project.side/'go').touch()
    project.write(TROUBLE.replace('0.1}', '10}'))
    code,_,err = say(project, 'run', 'params/sums.yaml', '--retry-failed', '--only', 'seed=1')
    assert code==0 and (project.job(1)/'rows.parquet').read_bytes()==(calm.job(1)/'rows.parquet').read_bytes(), err
    went_on(project, 1, 'hold')
    assert not (project.runs/'.checkpoints'/JOBS/'seed-1').exists() or not any((project.runs/'.checkpoints'/JOBS/'seed-1').iterdir())

def test_the_fork_server_killed(calm, make, command):
    "It is the parent of all workers; they are lost with it, and tried again"
    project = make()
    run = command(project, MODE='hold')
    until(lambda: all((project.side/f'held-{i}').exists() for i in (0, 1)), 'two jobs are held')
    server, = [p for p in psutil.Process(run.pid).children() if p.children()]
    server.kill()
    (project.side/'go').touch()
    code,_,err = run.wait()
    run.nobody_left(); whole(project)
    assert code==0, err
    same_as(calm, project)

# ------------------------------------------------------------------------------------------------ disks

@pytest.fixture
def disk(make):
    "A project whose results go to a small file system of their own, and a function that mounts it anew"
    project = make()
    runs = project.runs.parent
    runs.mkdir()
    root = [] if os.geteuid()==0 else ['sudo', '-n']
    def mount(*options): return subprocess.run([*root, 'mount', *options, str(runs)], capture_output=True, text=True)
    made = mount('-t', 'tmpfs', '-o', 'size=4m,mode=777', 'tmpfs') if shutil.which('mount') and (not root or shutil.which('sudo')) else None
    if made is None or made.returncode: pytest.skip(f"a small disk cannot be mounted here ({made.stderr.strip() if made else 'no mount or sudo'})")
    yield project,mount
    subprocess.run([*root, 'umount', '--lazy', str(runs)], check=True)

@pytest.mark.timeout(900)
def test_a_full_disk(calm, disk, command, say):
    project,mount = disk
    ballast = project.runs.parent/'ballast'
    def leave(kib):  # so much room
        ballast.unlink(missing_ok=True)
        room = shutil.disk_usage(ballast.parent).free-kib*1024
        ballast.write_bytes(bytes(room))
    for kib in 0,40,200:
        leave(kib)
        run = command(project, 'run', 'params/sums.yaml', '--only', 'seed=0')
        code,_,err = run.wait()
        assert code in (1, 2) and 'Traceback' not in err and 'No space left on device' in err and len(err.splitlines())<=3, err
        if not kib: assert code==2 and one_line(err)
        run.nobody_left(); whole(project)
        assert not project.rows()
    ballast.unlink()
    code,_,err = say(project, 'run', 'params/sums.yaml', MODE='fill-1')   # in the middle of the second job
    assert code in (1, 2) and 'Traceback' not in err and 'No space left on device' in err, err
    whole(project)
    assert project.record(0)['state']=='done' and project.rows().items() <= calm.rows().items()
    ballast.unlink()
    code,_,err = say(project)
    assert code==0, err
    same_as(calm, project)
    if mount('-o', 'remount,ro').returncode: return
    code,_,err = say(project, 'run', 'params/sums.yaml', '--fresh')
    assert code==2 and one_line(err) and 'Read-only file system' in err, err
    code,out,err = say(project, 'list', 'params/sums.yaml')
    assert code==0 and out.splitlines()[-1]=='3 jobs: 3 done' and not err
    mount('-o', 'remount,rw')

def test_a_folder_that_may_only_be_read(make, say, disk):
    project,mount = disk
    if mount('-o', 'remount,ro').returncode: pytest.skip('cannot be mounted read-only here')
    code,out,err = say(project)
    assert (code, out)==(2, '') and one_line(err) and 'Read-only file system' in err and str(project.runs.parent) in err, err
    mount('-o', 'remount,rw')

def test_a_file_where_the_folder_should_be(make, say):
    project = make()
    project.runs.parent.touch()
    code,out,err = say(project)
    assert (code, out)==(2, '') and one_line(err) and str(project.runs.parent) in err, err

# ------------------------------------------------------------------------------------------------ people

def test_edits_and_a_second_run_while_a_batch_runs(calm, make, command, say):
    project = make(seeds=SEEDS[:2])
    template,mine = project.root/'reports'/'count.ipynb',command(project, 'run', 'params/sums.yaml', MODE='hold-0')
    until(lambda: (project.side/'held-0').exists(), 'the first job is held')
    code,out,err = say(project, 'list', 'params/sums.yaml')
    first,second,last = out.splitlines()
    assert code==0 and first.split()[0]=='running' and first.endswith('counting 50 %') and second.split()[0]=='missing' and '1 running, 1 missing' in last, out
    code,out,err = say(project)
    assert (code, out)==(2, '') and one_line(err) and f'is being run by process {mine.pid} on ' in err, err
    good = template.read_text()
    template.write_text('{"cells": [')
    write_template(project.root/'reports'/'count_summary.ipynb', SUMMARY)   # and a summary is new
    (project.side/'go').touch()
    code,_,err = mine.wait()
    assert code==0 and not left(project) and 'Traceback' not in err, err
    assert project.rows()=={k:v for k,v in calm.rows().items() if not k.endswith('seed-2/rows.parquet')}
    code,out,err = say(project, 'list', 'params/sums.yaml')
    assert (code, out)==(2, '') and one_line(err) and 'count.ipynb' in err, err
    template.write_text(good.replace('0.05', '0.06'))
    code,out,err = say(project, 'list', 'params/sums.yaml')
    assert code==0 and [l.split()[0] for l in out.splitlines()[:2]]==['stale']*2 and out.count('changed: template')==2, out
    template.write_text(good)
    code,out,err = say(project)
    assert code==0 and 'done already: 2 of 2 jobs' in err and (project.runs/'count_summary'/'sum.txt').exists(), err

def test_the_package_changes_while_a_job_runs(make, command):
    project = make(seeds=[0])
    copy = shutil.copytree(Path(rlrec.__file__).parent, project.root/'copy'/'rlrec')
    run = command(project, imported=False, MODE='hold', PYTHONPATH=str(copy.parent))
    until(lambda: (project.side/'held-0').exists() or not run.alive(), 'the job is held')
    with open(copy/'core.py', 'a') as f: f.write('\n# changed\n')
    (project.side/'go').touch()
    code,_,err = run.wait()
    record = project.record(0)
    assert code==0 and record['state']=='done' and record['parts']['package']=='changed while the job ran', err
    assert standing(record, record['parts'] | dict(package=source_hash()), project.job(0))==('stale', 'changed: package')

def test_damaged_files_are_found_and_computed_again(calm, tmp_path, say):
    project = Project(shutil.copytree(calm.root, tmp_path/'project'), made=True)
    rows = bytearray((project.job(0)/'rows.parquet').read_bytes())
    rows[len(rows)//2] ^= 1
    (project.job(0)/'rows.parquet').write_bytes(rows)
    (project.job(1)/'run.json').write_text('{"state": "do')
    def others(): return {p: p.stat().st_mtime_ns for folder in (project.job(2), project.runs/'count_summary') for p in folder.rglob('*')}
    before = others()
    code,out,_ = say(project, 'list', 'params/sums.yaml')
    assert code==0 and [l.split()[0] for l in out.splitlines()[:3]]==['damaged', 'damaged', 'done'], out
    code,_,err = say(project)
    assert code==0 and f'{JOBS}/seed-0: rows.parquet is damaged; it is run again' in err and f'{JOBS}/seed-1: run.json is damaged; it is run again' in err, err
    assert 'done already: 1 of 3 jobs' in err and others()==before
    same_as(calm, project)
    (project.job(1)/'rows.parquet').unlink()
    code,out,_ = say(project, 'list', 'params/sums.yaml')
    assert out.splitlines()[1].startswith('damaged') and out.splitlines()[1].endswith('rows.parquet has gone')

@pytest.mark.parametrize('name', ['SIGINT', 'SIGTERM'])
def test_told_to_stop(calm, make, command, say, name):
    "Ctrl-C reaches the whole group of processes, a system's request to end only the command; what had finished is kept, nothing works on"
    project,tell = make(seeds=SEEDS[:2]),os.killpg if name=='SIGINT' else os.kill
    run = command(project, 'run', 'params/sums.yaml')
    until(project.attempts, 'the first job is about to begin', pause=.002)   # its process is not there yet
    tell(run.pid, signal.Signals[name])
    stopped(project, run)
    assert not project.rows()
    run = command(project, 'run', 'params/sums.yaml', MODE='hold-1')
    until(lambda: (project.side/'held-1').exists(), 'the second job is held')
    tell(run.pid, signal.Signals[name])
    stopped(project, run)
    assert project.record(0)['state']=='done' and not project.job(1).exists()
    assert project.rows()=={k:v for k,v in calm.rows().items() if k.endswith('seed-0/rows.parquet')}

def stopped(project, run):
    code,out,err = run.wait()
    run.nobody_left(); whole(project)
    assert (code, out)==(130, '') and err.splitlines()[-1].startswith('interrupted; what had finished is in ') and 'Traceback' not in err, (code, err)
    assert not left(project), left(project)
    assert (project.runs/'index.html').exists()
