"""Pages of docs/reference/, made from the code.

`python docs/generate_reference.py` writes them. Each module makes a few pages.
Docstrings are read from the source by griffe. Values such as a fault's fidelity come
from the imported package.
"""
