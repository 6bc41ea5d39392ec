FROM windows
RUN ["c:\\windows\\system32\\tasklist.exe"]
