FROM localhost:5000/team/app:v1.2-rc3 AS x
