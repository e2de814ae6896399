"Every code block of the README works, in the order in which a reader meets it"
import os,re,shlex,subprocess,sys
from pathlib import Path
import pytest,yaml

ROOT = Path(__file__).parent.parent
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
    yield {}
    os.chdir(here)
    if before is None: del os.environ['RLREC_DATA']
    else: os.environ['RLREC_DATA'] = before

@pytest.mark.parametrize('i', range(len(PYTHON)))
def test_python_blocks(i, namespace): exec(compile(PYTHON[i], f'README.md, python block {i+1}', 'exec'), namespace)

@pytest.mark.parametrize('block', [b for kind,b in BLOCKS if kind=='yaml'])
def test_yaml_blocks(block, folder, namespace):
    "A valid batch, or the description of a data set"
    content = yaml.safe_load(block)
    if 'jobs' not in content: return
    (folder/'params'/'block.yaml').write_text(block)
    from rlrec.batch import read_batch
    assert read_batch(folder/'params'/'block.yaml').jobs

@pytest.mark.parametrize('line', sorted({l.split('#')[0].strip() for kind,b in BLOCKS if kind=='bash' for l in b.splitlines() if l.split('#')[0].strip()}))
def test_shell_lines(line):
    "Commands exist, options are known, files are there; downloads and long runs are not started"
    words = [w for w in shlex.split(line) if not re.fullmatch(r'\w+=\S*', w)]
    if words[0]=='make': subprocess.run(['make', '-n', *words[1:]], cwd=ROOT, check=True, capture_output=True)
    elif words[0]=='rlrec':
        from typer.testing import CliRunner
        from rlrec.batch import app
        command = words[1:3] if words[1]=='data' and len(words)>2 else words[1:2]
        help_ = CliRunner().invoke(app, [*command, '--help'], env=dict(COLUMNS='200')); assert help_.exit_code==0, help_.output
        for w in words: assert not w.startswith('--') or w in help_.output, f'{w} is not an option of rlrec {command}'
        for w in words: assert not w.endswith('.yaml') or (ROOT/w).exists(), w
    else: assert words[0] in ('git','cd','pip'), line

def test_files_and_folders_named_exist():
    for name in re.findall(r'\]\(((?!http|#)[^)]+)\)', (ROOT/'README.md').read_text()): assert (ROOT/name).exists(), name
