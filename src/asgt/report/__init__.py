"""Reports: figures and the page. It draws given results and computes none."""
