"""Files to documents: `load` a file or folder, `follow` a log. One module a format; libraries load on first use."""

from ttt_memory.loaders.loading import gives_one, load
from ttt_memory.loaders.places import place
from ttt_memory.loaders.tail import follow

__all__ = ["follow", "gives_one", "load", "place"]
