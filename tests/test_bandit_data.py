"The data of the bandits: images in their official layouts, pickles that are not trusted, the music tables, and their places in the catalogue"
import gzip, hashlib, os, pickle, re, subprocess, sys, tarfile

import nbformat, numpy as np, pandas as pd, pytest
from conftest import one_line
from rlrec.batch.command import main
from rlrec.batch.records import dataset_facts
from rlrec.core import ConfigError, DataError
from rlrec.data import catalogue, images
from rlrec.data.images import (BATCHES, CIFAR10_CLASSES, MNIST_MD5, load_cifar10, load_digits, load_mnist, make_images, py2_batch,
                               read_plain_pickle, write_cifar10, write_idx, write_tar)
from rlrec.data.music import FEATURES, load_music, synthetic_music, write_music
from rlrec.envs.images import ImageBandit
from rlrec.envs.music import MusicBandit

# ------------------------------------------------------------------------------------------------ MNIST

def mnist_parts(seed=0, n=40, m=20):
    rng = np.random.default_rng(seed)
    return rng.integers(256, size=(n, 28, 28)), np.arange(n) % 10, rng.integers(256, size=(m, 28, 28)), np.arange(m) % 10

def write_mnist(home, parts=None, suffix='.gz'):
    "A twin in the official layout"
    for name, array in zip(MNIST_MD5, parts or mnist_parts()): write_idx(array, home/'mnist'/f'{name}{suffix}')
    return home/'mnist'

@pytest.mark.parametrize('suffix', ['', '.gz'], ids=['unpacked', 'packed'])
def test_mnist_there_and_back(home, suffix):
    x, y, u, v = mnist_parts()
    write_mnist(home, (x, y, u, v), suffix)
    d = catalogue.load('mnist')
    assert d.train_x.dtype == np.uint8 and d.train_y.dtype == np.int64 and d.shape == (28, 28) and d.top == 255 and d.n_classes == 10
    assert np.array_equal(d.train_x, x.reshape(40, 784)) and np.array_equal(d.train_y, y) and np.array_equal(d.test_x, u.reshape(20, 784)) and np.array_equal(d.test_y, v)

def test_the_packing_does_not_change_the_fingerprint(home):
    write_mnist(home); packed = load_mnist().fingerprint
    write_mnist(home, suffix='')
    assert load_mnist().fingerprint == packed
    parts = mnist_parts(); parts[0][0, 0, 0] ^= 1
    write_mnist(home, parts, suffix='')
    assert load_mnist().fingerprint != packed

def cut(path): path.write_bytes(path.read_bytes()[:-20])
def flip(path): data = bytearray(path.read_bytes()); data[len(data)//2] ^= 255; path.write_bytes(data)
def page(path): path.write_bytes(b'<html>not found</html>')
def empty(path): path.write_bytes(b'')
TX, TY, SX, SY = (f'{n}.gz' for n in MNIST_MD5)

@pytest.mark.parametrize('spoil,file,says', [
    (cut, TX, 'ends too early or is damaged'), (flip, TX, 'ends too early or is damaged|not the idx file|not a gzip'), (page, TY, 'not a gzip file'), (empty, SX, 'begins with nothing|ends too early'),
    (lambda p: write_idx(np.zeros(40), p), TX, 'begins with 00 00 08 01 instead of 00 00 08 03'), (lambda p: write_idx(np.zeros((20, 28, 28)), p), SY, 'begins with 00 00 08 03 instead of 00 00 08 01'),
    (lambda p: p.write_bytes(gzip.compress(b'\0\0\x0d\x03' + bytes(20))), SX, 'begins with 00 00 0d 03'), (lambda p: p.write_bytes(gzip.compress(b'\0\0\x08\x03\0\0')), SX, 'begins with 00 00 08 03'),
    (lambda p: p.write_bytes(gzip.compress(gzip.decompress(p.read_bytes())+b'x')), SX, '15681 bytes of data instead of 20 x 28 x 28'),
    (lambda p: p.write_bytes(gzip.compress(gzip.decompress(p.read_bytes())[:-1])), TY, '39 bytes of data instead of 40'),
    (lambda p: write_idx(np.arange(39) % 10, p), TY, '40 images but 39 labels'), (lambda p: write_idx(np.arange(20) % 11, p), SY, 'label 10 of image 10 is outside 0-9'),
    (lambda p: write_idx(np.zeros((20, 14, 14)), p), SX, 'images of 14 x 14, but .*train-images-idx3-ubyte.gz has 28 x 28'),
    (os.remove, SY, 'there is no such file; `rlrec data get mnist`')])
def test_mnist_faults(home, spoil, file, says):
    spoil(write_mnist(home)/file)
    with pytest.raises(DataError, match=f'{file}: .*(?:{says})' if file != SX or 'but' not in says else says) as e: load_mnist()
    one_line(e)

def test_an_empty_set_is_refused(home):
    write_mnist(home, (np.zeros((0, 28, 28)), np.zeros(0), *mnist_parts()[2:]))
    with pytest.raises(DataError, match='no images'): load_mnist()

# ------------------------------------------------------------------------------------------------ CIFAR-10

def cifar(n=50, m=20, seed=0):
    x = np.random.default_rng(seed).integers(256, size=(n+m, 3072)).astype(np.uint8)
    return make_images('cifar10', (x[:n], np.arange(n) % 10), (x[n:], np.arange(m) % 10), (3, 32, 32), 255, CIFAR10_CLASSES, ('train', 'test'))

def same(a, b): return all(np.array_equal(getattr(a, k), getattr(b, k)) for k in ('train_x', 'train_y', 'test_x', 'test_y')) and a.fingerprint == b.fingerprint

@pytest.mark.parametrize('packed', [False, True], ids=['folder', 'archive'])
def test_cifar10_there_and_back(home, packed):
    twin = cifar()
    write_cifar10(twin, home/'cifar10', packed=packed)
    assert same(catalogue.load('cifar10'), twin) and same(catalogue.load('cifar10'), twin)          # parsed, then from the cache

@pytest.mark.parametrize('found', [BATCHES, BATCHES[:1], BATCHES[2:4]], ids=['all', 'one', 'two'])
def test_absent_batches_are_told(home, found):
    write_cifar10(cifar(), home/'cifar10', batches=found).rename(home/'cifar10'/'part.tar.gz')
    d = catalogue.load('cifar10')
    card = d.card()
    assert d.batches == found and card.train_batches == f'{len(found)} of 5'
    assert card.absent_batches == (', '.join(b for b in BATCHES if b not in found) or 'none')
    assert ('absent_batches' in load_digits().card()) is False

def test_todays_pickles_are_batches_too(home):
    twin = cifar()
    files = {n: pickle.dumps({b'data': x, b'labels': y.tolist(), b'filenames': [b'a.png']*len(x)}, protocol=p)
             for p, (n, x, y) in enumerate([('data_batch_1', twin.train_x, twin.train_y), ('test_batch', twin.test_x, twin.test_y)], 4)}
    assert same(load_cifar10(write_tar(home/'today.tar.gz', {f'cifar-10-batches-py/{n}': d for n, d in files.items()})), twin)

def test_a_changed_batch_is_read_again(home):
    folder = write_cifar10(cifar(), home/'cifar10', packed=False)
    before = load_cifar10()
    x = before.train_x[:10].copy(); x[0, 0] ^= 1
    (folder/'data_batch_1').write_bytes(py2_batch(x, before.train_y[:10], ''))
    after = load_cifar10()
    assert after.fingerprint != before.fingerprint and (after.train_x != before.train_x).sum() == 1

def test_an_interrupted_cache_leaves_nothing_half(home, monkeypatch):
    write_cifar10(cifar(), home/'cifar10')
    def dies(out, **parts): out.write(b'half'); raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr(np, 'savez', dies)
        with pytest.raises(KeyboardInterrupt): load_cifar10()
    assert list((home.parent/'cache'/'images').iterdir()) == []
    assert same(load_cifar10(), cifar())

def archive(home, **change):
    "A twin of two batches, some of its files replaced, None: left out"
    x = np.random.default_rng(1).integers(256, size=(4, 3072)).astype(np.uint8)
    files = {n: py2_batch(x, [0, 1, 2, 3], n) for n in ('data_batch_1', 'test_batch')} | change
    return write_tar(home/'cifar10'/'own.tar.gz', {f'cifar-10-batches-py/{n}': d for n, d in files.items() if d is not None})

def dumped(**entries): return pickle.dumps({k.encode(): v for k, v in entries.items()})
ROWS = np.zeros((2, 3072), np.uint8)

@pytest.mark.parametrize('change,says', [
    (dict(test_batch=None), 'there is no test_batch in cifar-10-batches-py'), (dict(data_batch_1=None), 'there is no data_batch_1 to 5'),
    (dict(test_batch=pickle.dumps([1, 2])), 'test_batch: no dictionary with data and labels'), (dict(test_batch=dumped(data=ROWS)), 'test_batch: no dictionary with data and labels'),
    (dict(test_batch=dumped(data=ROWS[:, :9], labels=[0, 1])), 'not a table of 3072 bytes'), (dict(test_batch=dumped(data=ROWS.astype(float), labels=[0, 1])), 'not a table of 3072 bytes'),
    (dict(test_batch=dumped(data=ROWS, labels=[0])), 'test_batch: 2 images but 1 labels'), (dict(test_batch=dumped(data=ROWS, labels=[0, 10])), 'label 10 of image 1 is outside 0-9'),
    (dict(test_batch=dumped(data=ROWS, labels=['0', '1'])), 'labels is not a list of whole numbers'), (dict(test_batch=dumped(data=ROWS, labels=7)), 'labels is not a list of whole numbers'), (dict(test_batch=dumped(data=ROWS[:0], labels=[])), 'no images'),
    (dict(data_batch_1=py2_batch(ROWS, [0, 1], '')[:-40]), 'data_batch_1: not a complete pickle'), (dict(data_batch_1=b'<html>'), 'data_batch_1: not a complete pickle'), (dict(data_batch_1=b''), 'data_batch_1: not a complete pickle')])
def test_cifar10_faults(home, change, says):
    archive(home, **change)
    with pytest.raises(DataError, match=says) as e: load_cifar10()
    one_line(e)
    assert 'own.tar.gz' in str(e.value) and not list((home.parent/'cache'/'images').iterdir())

@pytest.mark.parametrize('spoil', [cut, flip, page, empty], ids=['cut', 'flipped', 'a page', 'empty'])
def test_broken_archives(home, spoil):
    spoil(archive(home))
    with pytest.raises(DataError, match='not a complete tar.gz|not a complete pickle') as e: load_cifar10()
    one_line(e)

def test_a_hostile_archive_writes_nothing(home):
    data = {f'../../{n}': b'x' for n in ('escaped', 'cifar-10-batches-py/data_batch_1')} | {'/tmp/absolute/cifar-10-batches-py/nothing': b'x'}
    before = sorted(home.parent.rglob('*'))
    path = write_tar(home/'cifar10'/'hostile.tar.gz', data)
    with pytest.raises(DataError): load_cifar10()
    assert set(map(str, home.parent.rglob('*'))) - set(map(str, before)) == {str(path), str(path.parent), str(home.parent/'cache'), str(home.parent/'cache'/'images')}

# ------------------------------------------------------------------------------------------------ pickles

class Call:
    "Pickles as a call of `f` with `args`"
    def __init__(self, f, *args): self.call = f, args
    def __reduce__(self): return self.call

def dies(*args): os._exit(3)

EVIL = dict(system=Call(os.system, 'touch owned'), eval=Call(eval, '1+1'), exec=Call(exec, 'owned = 1'), popen=Call(subprocess.Popen, ['touch', 'owned']), getattr=Call(getattr, 'x', 'format'), load=Call(np.load, 'owned'),
            imports=Call(__import__, 'os'), open=Call(open, 'owned', 'w'), ours=Call(dies), regex=re.compile('a'), frame=pd.DataFrame(), scalar=np.float64(2.), set={1, 2}, slice=slice(1), error=DataError('x'), dtype=Call(np.dtype, 'O'))

@pytest.mark.parametrize('protocol', range(6))
@pytest.mark.parametrize('evil', EVIL.values(), ids=EVIL)
def test_nothing_in_a_pickle_is_executed(evil, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps({b'data': evil, b'labels': [1]}, protocol=protocol)
    if isinstance(evil, set) and protocol >= 4: assert read_plain_pickle(data, 'file') == {b'data': {1, 2}, b'labels': [1]}; return     # an opcode of its own: a plain container
    with pytest.raises(DataError, match='^file: .*fetch'): read_plain_pickle(data, 'file')
    assert list(tmp_path.iterdir()) == []

SHORT = lambda s: b'X' + len(s).to_bytes(4, 'little') + s
HEAD = b'\x80\x02'
@pytest.mark.parametrize('program,says', [
    (b'cnumpy\nload\n' + SHORT(b'x') + b'\x85R.', 'asks for numpy.load'), (b'cnumpy.core.multiarray\nfromfile\n.', 'asks for numpy.core.multiarray.fromfile'),
    (b'cnumpy\nndarray.tofile\n.', 'asks for numpy.ndarray.tofile'), (b'c_codecs\ndecode\n.', 'asks for _codecs.decode'),
    (b'c_codecs\nencode\n' + SHORT(b'a') + SHORT(b'rot13') + b'\x86R.', '_codecs.encode to rot13'),
    (b'(' + SHORT(b'touch owned') + b'ios\nsystem\n.', 'asks for os.system'), (b'\x82\x01.', 'not a complete pickle'), (SHORT(b'somebody') + b'Q.', 'not a complete pickle'),
    (b'cnumpy\nndarray\n.', 'a bare class'), (b'cnumpy\ndtype\n' + SHORT(b'u1') + b'\x85R.', 'a bare dtype'),
    (b'cnumpy\nndarray\n)\x81.', 'not a complete pickle'),                                                    # NEWOBJ of something that is no class here
    (b'cnumpy.core.multiarray\n_reconstruct\n)R.', 'not a complete pickle'),                                  # an array that was never given a state
    (b'c_codecs\nencode\n}' + SHORT(b'__code__') + b'K\x01sb.', 'not a complete pickle|^$')])
def test_twisted_programs(program, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try: value = read_plain_pickle(HEAD + program, 'file')
    except DataError as e: assert re.search(says, str(e)), e
    else: assert callable(value) and says.endswith('^$')         # the last one scribbles on a function that was made for this reading alone
    assert list(tmp_path.iterdir()) == [] and read_plain_pickle(pickle.dumps({'x': b'y'}, 2), 'file') == {'x': b'y'}

def test_states_that_do_not_fit():
    def array(shape, raw, kind=b'u1', order=b'|'):
        n = lambda k: b'J' + int(k).to_bytes(4, 'little', signed=True)
        b = lambda s: b'U' + bytes([len(s)]) + s
        dtype = b'cnumpy\ndtype\n' + b(kind) + n(0) + n(1) + b'\x87R(' + n(3) + b(order) + b'NNN' + n(-1) + n(-1) + n(0) + b'tb'
        return HEAD + b'cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n' + n(0) + b'\x85' + b(b'b') + b'\x87R(' + n(1) + b'(' + b''.join(map(n, shape)) + b't' + dtype + b'\x89' + b(raw) + b'tb.'
    assert read_plain_pickle(array((2, 3), b'abcdef'), 'f').tolist() == [[97, 98, 99], [100, 101, 102]]
    assert read_plain_pickle(array((2,), b'\0\1\0\2', b'u2', b'>'), 'f').tolist() == [1, 2]
    for bad in (array((2, 4), b'abcdef'), array((2**30, 2**30), b'abcdef'), array((-1, 7), b'abcdef'), array((3,), b'abcdef', b'O8'), array((3,), b'abcdef', b'u1,u1'), array((1,), b'abcdef', b'V6'), array((6,), b'abcdef', b'\xff')):
        with pytest.raises(DataError, match='^f: '): read_plain_pickle(bad, 'f')

def test_arrays_of_all_plain_kinds():
    for kind in ('u1', 'i1', '<i4', '>i4', '<i8', '<f4', '>f8', '?', '<u2'):
        a = (np.arange(24).reshape(2, 3, 4) % 7).astype(kind)
        for p in range(6):
            back = read_plain_pickle(pickle.dumps({'a': [a, np.asfortranarray(a)], 'n': a.sum(0)[0, 0].item()}, protocol=p), 'f')
            for b in back['a']: assert np.array_equal(b, a) and b.dtype == a.dtype

# ------------------------------------------------------------------------------------------------ digits

def test_digits_are_the_same_everywhere():
    code = "from rlrec.data.images import load_digits; print(load_digits().fingerprint)"
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, env=os.environ | {'PYTHONHASHSEED': '7'})
    d = load_digits()
    assert out.stdout.strip() == d.fingerprint and len(d.train_x) == 1400 and len(d.test_x) == 397
    rows = {r.tobytes() for r in d.train_x}
    assert sum(r.tobytes() in rows for r in d.test_x) == 0

# ------------------------------------------------------------------------------------------------ music

@pytest.fixture
def tables(home): write_music(synthetic_music(n_genres=4, n_tracks=6), home/'music'); return home/'music'

def test_music_there_and_back(tables):
    a, b = synthetic_music(n_genres=4, n_tracks=6), catalogue.load('music')
    pd.testing.assert_frame_equal(a.genres, b.genres); pd.testing.assert_frame_equal(a.tracks, b.tracks)
    assert a.fingerprint == b.fingerprint and b.name == 'music' and np.array_equal(a.preferences(), b.preferences())

def test_more_columns_in_any_order_are_welcome(tables):
    before = load_music()
    t = pd.read_csv(tables/'tracks.csv')
    t.assign(title='a "quoted", title', year=2020)[['title', *FEATURES[::-1], 'year', 'id']].to_csv(tables/'tracks.csv', index=False)
    assert load_music().fingerprint == before.fingerprint

def edit(row, column, value):
    def change(path):
        t = pd.read_csv(path, dtype=str); t.loc[row, column] = value; t.to_csv(path, index=False)
    return change
def text(old, new): return lambda path: path.write_text(path.read_text().replace(old, new, 1))

@pytest.mark.parametrize('file,change,says', [
    ('tracks.csv', edit(2, 'energy', 'loud'), "tracks.csv, line 4: energy 'loud' is not a number"), ('tracks.csv', edit(0, 'tempo', ''), "tracks.csv, line 2: tempo '' is not a number"),
    ('tracks.csv', edit(5, 'valence', 'nan'), "tracks.csv, line 7: valence 'nan' is not a number"), ('tracks.csv', edit(1, 'mode', 'inf'), "line 3: mode 'inf' is not a number"),
    ('tracks.csv', edit(3, 'loudness', '-5.2'), 'line 5: loudness -5.2 is outside 0-2; .*loudness/60'), ('genres.csv', edit(3, 'tempo', '121'), 'genres.csv, line 5: tempo 121 is outside 0-2'),
    ('genres.csv', edit(1, 'genre', 'genre-0'), 'genres.csv, line 3: genre genre-0 is listed twice'), ('tracks.csv', edit(1, 'id', ''), 'tracks.csv, line 3: id is empty'),
    ('genres.csv', text('energy', 'enrgy'), 'genres.csv, line 1: there is no column energy'), ('genres.csv', text('genre,', 'name,'), 'there is no column genre'),
    ('tracks.csv', lambda p: p.write_text(p.read_text() + 'track-9,1,2\n'), 'tracks.csv, line 8: 3 columns instead of 11'), ('tracks.csv', lambda p: p.write_text(p.read_text().splitlines()[0] + '\n'), 'tracks.csv: no rows'),
    ('genres.csv', empty, 'genres.csv: no rows'), ('tracks.csv', lambda p: p.write_bytes(b'\xff\xfe' + p.read_bytes()), 'tracks.csv, line 1: byte 0xff is not UTF-8'),
    ('tracks.csv', os.remove, 'there is no tracks.csv; put genres.csv')])
def test_music_faults(tables, file, change, says):
    change(tables/file)
    with pytest.raises(DataError, match=says) as e: load_music()
    one_line(e)

@pytest.mark.parametrize('seed', range(6))
def test_twins_keep_their_promises(seed):
    m = synthetic_music(seed)
    b = MusicBandit(m)
    w = b.weights
    assert m.genres.shape == (20, 10) and m.tracks.shape == (50, 10) and list(m.genres) == FEATURES and not m.genres.isna().any(axis=None)
    assert (m.genres.min(axis=None) >= 0) and m.tracks.max(axis=None) <= 1 and .06 < np.abs(m.preferences()).mean() < .16
    assert w@b.table.max(1) > .94 and (w@b.table).max() < .1 and abs((w@b.table).mean()) < .02 and w@b.table.min(1) < -.9

def test_impossible_twins():
    with pytest.raises(ConfigError, match='2 or more, not 1 and 50'): synthetic_music(n_genres=1)

# ------------------------------------------------------------------------------------------------ the catalogue

NEW = ['mnist', 'cifar10', 'digits', 'music', 'synthetic-music', 'ads', 'behaviour']

def fill(home):
    write_mnist(home); write_cifar10(cifar(), home/'cifar10'); write_music(synthetic_music(), home/'music')

def test_every_name_has_a_card(home):
    fill(home)
    assert set(NEW) <= set(catalogue.names())
    prints = {n: catalogue.load(n).fingerprint for n in NEW}
    assert len(set(prints.values())) == len(NEW) - 1 and prints['music'] == prints['synthetic-music']        # the same tables under two names
    assert prints == {n: catalogue.load(n).fingerprint for n in NEW}
    for n in NEW:
        facts = dataset_facts(n)                       # what a run's JSON keeps
        assert facts['fingerprint'] == prints[n] and facts['card']['dataset'] == n
        assert catalogue.check(n).dataset == n

def test_status_tells_what_is_here(home):
    s = catalogue.status()
    assert s.available[NEW].tolist() == [False, False, True, False, True, True, True]
    assert s['where']['cifar10'].endswith('cifar10/cifar-10-python.tar.gz') and s['where']['mnist'] == str(home/'mnist') and s['where']['ads'] == 'simulated'
    fill(home)
    s = catalogue.status()
    assert s.available[NEW].all() and s['where']['cifar10'] == str(home/'cifar10'/'cifar-10-python.tar.gz')
    (home/'mnist'/SY).unlink()
    assert not catalogue.status().available['mnist']

def test_check_compares_contents(home, monkeypatch):
    fill(home)
    assert catalogue.check('mnist').md5.startswith('train-images-idx3-ubyte, ') and catalogue.check('cifar10').md5.startswith('data_batch_1, ')
    monkeypatch.setattr(images, 'MNIST_MD5', {n: hashlib.md5(gzip.decompress((home/'mnist'/f'{n}.gz').read_bytes())).hexdigest() for n in MNIST_MD5})
    assert catalogue.check('mnist').md5 == 'official contents'
    with tarfile.open(home/'cifar10'/'cifar-10-python.tar.gz') as tar: sums = {m.name.split('/')[1]: hashlib.md5(tar.extractfile(m).read()).hexdigest() for m in tar}
    monkeypatch.setattr(images, 'CIFAR10_MD5', sums)
    assert catalogue.check('cifar10').md5 == 'official contents'

@pytest.mark.parametrize('name,says', [('mnist', 'rlrec data get mnist'), ('cifar10', 'rlrec data get cifar10'), ('music', 'put genres.csv .* or use dataset synthetic-music')])
def test_what_is_missing_says_what_helps(home, name, says):
    for f in (catalogue.load, catalogue.check):
        with pytest.raises(DataError, match=says) as e: f(name)
        one_line(e)
        assert str(home/name) in str(e.value)

@pytest.mark.parametrize('name', ['digits', 'ads', 'behaviour', 'synthetic-music', 'synthetic-movielens'])
def test_nothing_to_download(home, name): assert catalogue.get(name) == f'{name} needs no download'

def test_get_music_asks_for_files(home):
    with pytest.raises(DataError, match='put genres.csv'): catalogue.get('music')
    write_music(synthetic_music(), home/'music')
    assert catalogue.get('music') == home/'music'

def test_a_partial_archive_is_not_the_official_download(home, monkeypatch):
    "`get` fetches the official file although another archive is in its place"
    archive(home)
    asked = []
    monkeypatch.setattr(catalogue, '_fetch', lambda place, url, md5: asked.append((place.name, md5)))
    catalogue.get('cifar10')
    assert asked == [('cifar-10-python.tar.gz', 'c58f30108f718f92721af3b95e74349a')]

def command(capfd, *args):
    with pytest.raises(SystemExit) as end: main([str(a) for a in args])
    return end.value.code, *capfd.readouterr()

def test_the_commands(home, capfd):
    code, out, err = command(capfd, 'data', 'list')
    assert code == 0 and all(n in out for n in NEW)
    code, out, err = command(capfd, 'data', 'check', 'digits')
    assert code == 0 and '1400' in out
    code, out, err = command(capfd, 'data', 'check', 'music')
    assert code == 2 and err.count('\n') == 1 and 'put genres.csv' in err and not out

def test_a_job_without_its_files_ends_in_one_line(home, tmp_path, capfd):
    root = tmp_path/'project'
    for sub in ('reports', 'params'): (root/sub).mkdir(parents=True)
    cell = nbformat.v4.new_code_cell("dataset: str = 'digits'  # data\nseed: int = 0  # seed\nout: str = ''  # folder", metadata=dict(tags=['parameters']))
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=dict(kernelspec=dict(name='python3', language='python', display_name='python3'))), root/'reports'/'empty.ipynb')
    (root/'params'/'music.yaml').write_text('name: m\njobs:\n  - {report: empty, dataset: music, seed: 0}\n')
    code, out, err = command(capfd, 'run', root/'params'/'music.yaml')
    assert code == 2 and err.count('\n') == 1 and str(home/'music') in err and 'synthetic-music' in err
    assert not (root/'reports'/'runs').exists()

# ------------------------------------------------------------------------------------------------ bandits over them

def test_bandits_of_every_set(home):
    fill(home)
    for n, k in (('mnist', 20), ('cifar10', 20), ('digits', 397)):
        b = ImageBandit(catalogue.load(n))
        who = b.draw(np.random.default_rng(0), k, 'test')
        assert sorted(who) == list(range(len(b.images.train_x), len(b.labels))) and b.observe(who).max() <= 1
        with pytest.raises(ConfigError, match=f'has {k} test images'): b.draw(np.random.default_rng(0), k+1, 'test')

# ------------------------------------------------------------------------------------------------ the real files, where RLREC_DATA has them

def test_real_mnist(real_data):
    real_data('mnist')
    c = catalogue.check('mnist')
    assert (c.train, c.test, c.train_per_class, c.test_per_class, c.md5) == (60_000, 10_000, '5421-6742', '892-1135', 'official contents')

def test_real_cifar10(real_data):
    real_data('cifar10')
    d = catalogue.load('cifar10')
    assert d.train_x.shape == (10_000*len(d.batches), 3072) and np.bincount(d.test_y).tolist() == [1000]*10 and d.train_x.max() == 255
    if len(d.batches) == 5: assert np.bincount(d.train_y).tolist() == [5000]*10

def test_real_music(real_data):
    real_data('music')
    m = catalogue.load('music')
    assert (m.n_genres, m.n_tracks) == (20, 50) and list(m.genres.index) == sorted(m.genres.index)
    b = MusicBandit(m)
    fixed = b.weights@b.table
    assert fixed.argmax() == 35 and abs(fixed.max()-.061) < .027 and abs(fixed.mean()+.005) < .003
    assert abs(b.weights@b.table.max(1)-.965) < .003 and abs(b.weights@b.table.min(1)+.993) < .003
