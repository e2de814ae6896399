"Every code block of the README works, in the order in which a reader meets it"
import os,re,shlex,subprocess,sys
from pathlib import Path
import pytest,yaml

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.xdist_group('readme')   # a block builds on those above it: one process reads them once
BLOCKS = re.findall(r'^```(\w+)\n(.*?)^```', (ROOT/'README.md').read_text(), re.M|re.S)
PYTHON = [b for kind,b in BLOCKS if kind=='python']

def test_every_block_is_of_a_kind_that_is_tested():
    assert {kind for kind,_ in BLOCKS} <= {'python','bash','yaml','bibtex'} and len(PYTHON)>=5

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "A project folder with our report templates, where the blocks write their files"
    root = tmp_path_factory.mktemp('reader'); (root/'reports').mkdir(); (root/'params').mkdir()
    for p in (ROOT/'reports').glob('*.ipynb'): (root/'reports'/p.name).write_bytes(p.read_bytes())
    return root

@pytest.fixture(scope='module')
def namespace(folder):
    "One namespace for all blocks, as in one session of a reader"
    here = os.getcwd(); os.chdir(folder)
    os.environ['RLREC_DATA'],before = str(folder/'downloads'),os.environ.get('RLREC_DATA')
    yield {'blocks run': 0}
    os.chdir(here)
    if before is None: del os.environ['RLREC_DATA']
    else: os.environ['RLREC_DATA'] = before

def read_on(namespace, i):
    "Run the Python blocks up to block i that have not been run: they build on one another, and a process of the tests may have skipped some"
    while namespace['blocks run']<=i:
        done = namespace['blocks run']; namespace['blocks run'] += 1
        exec(compile(PYTHON[done], f'README.md, python block {done+1}', 'exec'), namespace)

@pytest.mark.parametrize('i', range(len(PYTHON)))
def test_python_blocks(i, namespace): read_on(namespace, i)

YAML = [b for kind,b in BLOCKS if kind=='yaml']

def test_the_yaml_blocks_are_a_batch_and_a_data_set(): assert sorted('jobs' in yaml.safe_load(b) for b in YAML)==[False, True]

@pytest.mark.parametrize('block', [b for b in YAML if 'jobs' in yaml.safe_load(b)])
def test_the_batch_is_valid(block, folder, namespace):
    (folder/'params'/'block.yaml').write_text(block)
    from rlrec.batch.grid import read_batch
    assert read_batch(folder/'params'/'block.yaml').jobs

@pytest.mark.parametrize('block', [b for b in YAML if 'jobs' not in yaml.safe_load(b)])
def test_the_data_set_is_found_by_its_description(block, folder, namespace):
    "Beside the ratings that an earlier Python block made, the description gives the same data set as that block"
    read_on(namespace, next(i for i,b in enumerate(PYTHON) if 'ratings.csv' in b))
    from rlrec.data import catalogue
    assert 'mine' in catalogue.LOADERS                   # the block registered it; a folder needs a name that is free
    own = folder/'downloads'/'mine-too'; own.mkdir(parents=True)
    (own/'dataset.yaml').write_text(block); (own/'ratings.csv').write_bytes((folder/'ratings.csv').read_bytes())
    described,registered = catalogue.load('mine-too'),catalogue.load('mine')
    assert described.n_users==registered.n_users>0 and described.scale==registered.scale and described.train.equals(registered.train) and described.test.equals(registered.test)

@pytest.mark.parametrize('line', sorted({l.split('#')[0].strip() for kind,b in BLOCKS if kind=='bash' for l in b.splitlines() if l.split('#')[0].strip()}))
def test_shell_lines(line):
    "Commands exist, options are known, files are there; downloads and long runs are not started"
    words = [w for w in shlex.split(line) if not re.fullmatch(r'\w+=\S*', w)]
    if words[0]=='make': subprocess.run(['make', '-n', *words[1:]], cwd=ROOT, check=True, capture_output=True)
    elif words[0]=='rlrec':
        from typer.testing import CliRunner
        from rlrec.batch.command import app
        command = words[1:3] if words[1]=='data' and len(words)>2 else words[1:2]
        help_ = CliRunner().invoke(app, [*command, '--help'], env=dict(COLUMNS='200')); assert help_.exit_code==0, help_.output
        for w in words: assert not w.startswith('--') or w in help_.output, f'{w} is not an option of rlrec {command}'
        for w in words: assert not w.endswith('.yaml') or (ROOT/w).exists(), w
    elif words[0]=='python':
        told = subprocess.run([sys.executable, *words[1:2], '--help'], cwd=ROOT, capture_output=True, text=True); assert told.returncode==0 or 'is not installed' in told.stderr, told.stderr
        for w in words: assert not w.startswith('--') or told.returncode or w in told.stdout, f'{w} is not an option of {words[1]}'
    else: assert words[0] in ('git','cd','pip','dask'), line

@pytest.mark.parametrize('line', ['rlrec list params/quick.yaml', 'rlrec data list'])
def test_what_only_looks_is_run(line, namespace, monkeypatch):
    from typer.testing import CliRunner
    from rlrec.batch.command import app
    assert any(l.split('#')[0].strip()==line for kind,b in BLOCKS if kind=='bash' for l in b.splitlines())
    monkeypatch.chdir(ROOT)
    told = CliRunner().invoke(app, line.split()[1:], catch_exceptions=False)
    assert told.exit_code==0 and {'list': 'cold_start/synthetic-movielens/seed-0', 'data': 'synthetic-movielens'}[line.split()[1]] in told.output

def test_nothing_is_left_to_be_filled_in(): assert '@@' not in (ROOT/'README.md').read_text()

def test_files_and_folders_named_exist():
    for name in re.findall(r'\]\(((?!http|#)[^)]+)\)', (ROOT/'README.md').read_text()): assert (ROOT/name).exists(), name
