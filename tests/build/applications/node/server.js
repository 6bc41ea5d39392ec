const express = require('express');

const app = express();
app.use(express.json());
app.get('/', (request, response) => response.send(`${process.env.GREETING} of express\n`));
app.post('/sum', (request, response) => response.json({ sum: request.body.reduce((a, b) => a + b, 0) }));
const server = app.listen(process.env.PORT, '127.0.0.1');
process.on('SIGTERM', () => server.close());
