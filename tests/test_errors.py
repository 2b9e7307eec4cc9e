from __future__ import annotations

import pickle

from dbcpu import errors


def test_a_message_is_one_line_with_place_and_remedy():
    error = errors.ImageError("cannot be read", where="a\nb\x1b[31m.jpg", remedy="try again")
    assert str(error) == "a\\nb\\x1b[31m.jpg: cannot be read (try again)"


def test_names_that_are_not_utf8_can_be_printed():
    assert str(errors.ImageError("no", where="\udcff.jpg")).encode("utf-8") == b"\\udcff.jpg: no"


def test_exit_codes_are_the_documented_ones():
    kinds = [kind for kind in errors.DbcpuError.__subclasses__() if kind.__module__ == errors.__name__]
    codes = {kind.__name__: kind.exit_code for kind in kinds}
    assert codes == {
        "UsageError": 2,
        "ConfigError": 3,
        "CheckpointError": 4,
        "ImageError": 5,
        "TruthError": 5,
        "OutputError": 6,
        "SomeImagesFailedError": 7,
        "WorkerError": 1,
    }


def test_an_error_survives_the_way_between_processes():
    error = pickle.loads(pickle.dumps(errors.CheckpointError("bad", where="final", remedy="replace it")))  # noqa: S301
    assert str(error) == "final: bad (replace it)"
    assert error.exit_code == 4
