"""Makes the helper module of this folder importable whatever the import mode."""

import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

# print_blob shows how to repeat a failure; deadlines would fail on a busy machine.
settings.register_profile("ops", deadline=None, print_blob=True, max_examples=60)
settings.load_profile("ops")
