"The ground itself: every notebook runs, modules are claimed once, imports point down, export and clean change nothing"
import ast,filecmp,json,re,shutil,subprocess,sys,tomllib,configparser
from pathlib import Path
import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if not p.name.startswith('_') and '.ipynb_checkpoints' not in p.parts)
REPORTS = sorted(p for p in (ROOT/'reports').glob('*.ipynb'))
MAY = dict(core=(), data=('core',), tools=('core','data'), envs=('core','data','tools'), agents=('core',), analyses=('core','envs','agents'), batch=('core','data'),
           bench=('core','data','tools','envs','agents','analyses','batch'))

def cells(path): return json.loads(path.read_text())['cells']
def source(cell): return ''.join(cell['source'])
def claim(path):
    "The module a notebook exports to"
    for c in cells(path):
        if m := re.search(r'^#\|\s*default_exp\s+(\S+)', source(c), re.M): return m[1]
name = lambda p: str(p.relative_to(ROOT))

REAL = [pytest.param(p, marks=pytest.mark.real_data) if 'data_dir()' in p.read_text() else p for p in NOTEBOOKS]   # these look at real files where there are any

@pytest.mark.parametrize('path', REAL, ids=name)
def test_notebook_cells(path, monkeypatch):
    import matplotlib.pyplot as plt
    from nbdev.test import test_nb as run
    monkeypatch.chdir(path.parent)
    with plt.rc_context():      # notebooks share one process here: a style that one sets must not reach the next
        plt.rcdefaults()
        ok,_ = run(path, skip_flags=['slow'], force_flags=[])
        plt.close('all')
    assert ok, f'{name(path)} failed, see the captured output'

@pytest.mark.parametrize('path', NOTEBOOKS+REPORTS, ids=name)
def test_outputs_come_from_a_clean_run(path):
    for i,c in enumerate(cells(path)):
        if c['cell_type']!='code': continue
        assert not any(o['output_type']=='error' for o in c['outputs']), f'{name(path)}: cell {i} holds an error'
        text = json.dumps(c['outputs'])
        assert not re.search('/ho''me/\\w+/|/ro''ot/|/tmp/|\\.venv/', text), f'{name(path)}: the output of cell {i} names a folder of one machine'

@pytest.mark.xdist_group('ground')
def test_groups_of_tests_stay_together(request):
    "pytest 9.2 with pytest-xdist 3.8 forgets groups and says nothing (pytest-xdist's issue 1386): what tests share would be made in every process"
    assert not request.config.getoption('loadgroup', False) or request.node.nodeid.endswith('@ground')

def test_every_module_is_claimed_once():
    claims = [claim(p) for p in NOTEBOOKS]
    assert None not in claims, f'no default_exp in {[name(p) for p,c in zip(NOTEBOOKS, claims) if c is None]}'
    twice = {c for c in claims if claims.count(c)>1}
    assert not twice, f'claimed by two notebooks: {twice}'

def imports(module):
    "Modules of rlrec that an exported file imports anywhere, as absolute dotted names"
    path = ROOT/'rlrec'/Path(*module.split('.')).with_suffix('.py')
    package = ['rlrec', *module.split('.')[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level: yield '.'.join(package[:len(package)-node.level+1] + ([node.module] if node.module else []))
        elif isinstance(node, ast.ImportFrom) and node.module.startswith('rlrec'): yield node.module
        elif isinstance(node, ast.Import): yield from (a.name for a in node.names if a.name.startswith('rlrec'))

def room_of(module): return 'core' if module=='rows' else module.split('.')[0]   # the format of rows is as low as can be

@pytest.mark.parametrize('path', NOTEBOOKS, ids=name)
def test_imports_point_down_and_follow_the_numbers(path):
    me = claim(path); room = room_of(me)
    order = {claim(p): p.name for p in NOTEBOOKS if p.parent==path.parent}
    for other in imports(me):
        target = other.removeprefix('rlrec').strip('.')
        if not target: continue
        there = room_of(target)
        assert there==room or there in MAY[room], f'{name(path)} imports {other}: {room} may import {MAY[room]}'
        if there==room and target in order and room not in ('batch','bench'): assert order[target] < path.name, f'{name(path)} imports {other}, which is numbered later'

def test_export_and_clean_change_nothing(tmp_path):
    copy = tmp_path/'rlrec-copy'
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns('.venv', '.git', 'runs', '__pycache__', '*.egg-info', '_proc', 'build'))
    # in a copy, with the copy's own package on the path, so that nothing of ours is touched
    code = "from nbdev.export import nb_export; from nbdev.clean import nbdev_clean; from nbdev.doclinks import nbdev_export; nbdev_export(); nbdev_clean(); nbdev_clean(fname='reports')"
    done = subprocess.run([sys.executable, '-c', code], cwd=copy, env={**__import__('os').environ, 'PYTHONPATH': str(copy)}, capture_output=True, text=True)
    assert done.returncode==0, done.stderr
    files = [p.relative_to(ROOT) for d in ('nbs','reports','rlrec') for p in (ROOT/d).rglob('*') if p.suffix in ('.py','.ipynb') and not {'runs','__pycache__','.ipynb_checkpoints'} & set(p.parts)]
    _,changed,missing = filecmp.cmpfiles(ROOT, copy, map(str, files), shallow=False)
    assert not changed+missing, f'run `make export`: {changed+missing}'

def test_one_version():
    config = configparser.ConfigParser(); config.read(ROOT/'settings.ini')
    import rlrec
    assert rlrec.__version__==config['DEFAULT']['version']
    assert f"version: {rlrec.__version__}" in (ROOT/'CITATION.cff').read_text()
    assert tomllib.loads((ROOT/'pyproject.toml').read_text())['project']['dynamic']==['version']

def test_the_wheel_holds_the_module_and_nothing_else(tmp_path):
    "No notebooks, no data; built from a copy because setuptools leaves folders behind"
    import zipfile
    copy = tmp_path/'src'
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns('.venv', '.git', 'runs', '__pycache__', '*.egg-info', 'build'))
    subprocess.run([sys.executable, '-m', 'build', '--wheel', '--no-isolation', '--outdir', str(tmp_path), str(copy)], check=True, capture_output=True)
    wheel, = tmp_path.glob('*.whl')
    names = zipfile.ZipFile(wheel).namelist()
    assert 'rlrec/core.py' in names and 'rlrec/envs/cold_start.py' in names
    assert all(n.endswith('.py') or '.dist-info/' in n for n in names), [n for n in names if not n.endswith('.py')]
