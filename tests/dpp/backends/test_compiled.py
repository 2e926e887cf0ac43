import numba

from dppmask.dpp.backends.compiled import compiled, reordered


def test_without_a_folder_for_machine_code(monkeypatch):
    """numba refuses to cache where neither the package nor the user's folder can be written."""
    calls = []

    def njit(function, *, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        calls.append(options)
        return function

    monkeypatch.setattr(numba, "njit", njit)
    assert compiled(len) is len
    assert reordered(len) is len
    assert calls[0] == {"nogil": True, "fastmath": set()}
    assert "nnan" not in calls[1]["fastmath"]
    assert "ninf" not in calls[1]["fastmath"]
