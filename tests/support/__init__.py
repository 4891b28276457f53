"""What several test modules share, by subject."""

import pkgutil

import pytest

# An assertion that fails here shows its values, as one in a test module does.
pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)))
