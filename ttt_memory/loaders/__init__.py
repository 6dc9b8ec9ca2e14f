"""Files to documents: `load` a file or folder, `follow` a log. One module a format; libraries load on first use."""

from ttt_memory.loaders.follow import follow
from ttt_memory.loaders.loading import gives_one, load
from ttt_memory.loaders.places import place

__all__ = ["follow", "gives_one", "load", "place"]
