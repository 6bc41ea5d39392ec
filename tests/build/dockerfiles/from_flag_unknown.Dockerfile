FROM --paltform=linux/amd64 alpine
