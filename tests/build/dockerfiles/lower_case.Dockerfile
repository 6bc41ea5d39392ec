from scratch
copy a b
env a=b
