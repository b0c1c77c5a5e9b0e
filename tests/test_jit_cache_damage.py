"""The disk cache of compiled entry points: files that are damaged are compiled anew, and healed."""

from __future__ import annotations

import pytest
from cases import Cases
from throwaway_package import NOT_SAVED, Package


@pytest.mark.hazard("cache", "a damaged file")
def test_damaged_files_are_compiled_and_healed(package: Package, cases: Cases) -> None:
    program = """
        import pickle
        from hashlib import sha256
        assert list(call()) == [9.0, {"compiled": 1, "saved": 1}]
        (file,) = Path(os.environ["FASTBP_CACHE_DIR"]).glob("*/*.entry")
        good = file.read_bytes()
        entries.first(entries.Layer(np.arange(3.0), np.ones(3), 3))
        (other,) = Path(os.environ["FASTBP_CACHE_DIR"]).glob("*/first*.entry")

        def flipped(at):
            damaged = bytearray(good)
            damaged[at] ^= 1
            return bytes(damaged)

        sealed = []
        place = _jit._DiskCache._place
        _jit._DiskCache._place = lambda *args: sealed.append(place(*args)) or sealed[-1]
        call()
        key = sealed[-1][1]
        def seal(payload):
            return sha256(key + payload).digest() + payload
        types = pickle.loads(good[32:])[0]

        damages = {"empty": b"", "other": other.read_bytes(), "foreign": b"x" * 1000, "zeros": bytes(len(good))}
        damages |= {f"cut to {n}": good[:n] for n in (1, 32, 33, len(good) // 2, len(good) - 1)}
        damages |= {f"flipped {n}": flipped(n) for n in (0, 31, 32, 33, len(good) // 2, len(good) - 1)}
        damages |= {"longer": good + b"x", "not a pickle": seal(b"x"), "class gone": seal(b"cthrowaway.gone\\nX\\n.")}
        damages |= {"other content": seal(pickle.dumps((types, (1, 2)))), "other types": seal(pickle.dumps(((), ())))}
        wrong = {}
        for name, content in damages.items():
            file.write_bytes(content)
            seen = call(), call()
            if seen != ((9.0, {"compiled": 1, "saved": 1}), (9.0, {"loaded": 1})):
                wrong[name] = seen
        file.unlink()
        file.mkdir()
        report([wrong, len(damages), call()])
        """
    wrong, damages, as_a_folder = package.run(program)
    cases.count(damages, damages - len(wrong), wrong)
    assert as_a_folder == NOT_SAVED
    assert not package.files("*/*.tmp")


@pytest.mark.hazard("cache", "every file emptied, cut, flipped in a bit, replaced by another's")
def test_every_file(package: Package, cases: Cases) -> None:
    program = """
        rng, layer = np.random.default_rng(0), entries.Layer(np.arange(3.0), np.ones(3), 3)

        def use():
            _jit.counts.clear()
            importlib.reload(entries)
            return [entries.total(layer), entries.first(layer), entries.minus_one(1.0)], dict(_jit.counts)

        right = use()[0]
        files = sorted(Path(os.environ["FASTBP_CACHE_DIR"]).glob("*/*.entry"))
        good = [file.read_bytes() for file in files]
        wrong, tried = [], 0
        for i, file in enumerate(files):
            n = len(good[i])
            damages = [b"", good[i - 1], good[i - 2], *(good[i][:cut] for cut in (1, 31, 32, 33, n // 3, n - 1))]
            for at in rng.integers(0, n, 8):
                damages.append(good[i][:at] + bytes([good[i][at] ^ (1 << int(rng.integers(8)))]) + good[i][at + 1:])
            for damage in damages:
                tried += 1
                file.write_bytes(damage)
                if use() != (right, {"loaded": 2, "compiled": 1, "saved": 1}) or use() != (right, {"loaded": 3}):
                    wrong.append([file.name, len(damage)])
        report([right, len(files), tried, wrong])
        """
    right, n_files, tried, wrong = package.run(program)
    assert (right, n_files) == ([9.0, 0.0, 0.0], 3)
    cases.count(tried, tried - len(wrong), wrong)
