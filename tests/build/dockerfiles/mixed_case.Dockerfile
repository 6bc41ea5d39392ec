From scratch As Base
Env a=b
fRoM base
