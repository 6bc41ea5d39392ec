# escape=`
FROM windows
COPY testfile.txt c:\
RUN dir c:\ `
  /b
