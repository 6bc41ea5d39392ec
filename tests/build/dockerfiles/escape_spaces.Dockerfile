#    escape   =    `   
FROM scratch
