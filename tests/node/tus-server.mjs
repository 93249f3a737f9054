// The tus reference server with its file store. Arguments: the folder; prints the port that the system chose.
import { FileStore } from '@tus/file-store'
import { Server } from '@tus/server'

const server = new Server({
  path: '/files',
  datastore: new FileStore({ directory: process.argv[2] }),
})
const listener = server.listen(0, '127.0.0.1', () => console.log(listener.address().port))
