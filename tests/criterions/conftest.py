"""Fixtures of the criteria's tests."""

import pytest
from conftest import batch_of


@pytest.fixture
def batch(task):
    """The first six sentences of the validation set."""
    return batch_of(task, range(6), "valid")
