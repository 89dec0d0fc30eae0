"""Workspaces and plugin folders, as other groups of tests have them."""

from __future__ import annotations

from tests.engine.conftest import workspace as workspace
from tests.unit.conftest import plugins as plugins
