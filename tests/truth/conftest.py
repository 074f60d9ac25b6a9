"""Changed copies of the tree, removed after the test."""

from __future__ import annotations

import pytest
from truth.tree import changed_tree


@pytest.fixture
def tree_with(tmp_path):
    """A copy of the tree with these patches applied."""

    def made(patches):
        folder = tmp_path / "tree"
        folder.mkdir()
        return changed_tree(folder, patches)

    return made
