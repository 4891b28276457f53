"""Reports: figures and the page. It draws what it is given."""
