BEGIN TRANSACTION;
CREATE TABLE upload_helper_aliases (
	name VARCHAR(200) NOT NULL, 
	data TEXT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "upload_helper_aliases" VALUES('office','{"url":"https://gis.example.org","headers":{"Authorization":"Basic YW5uYTpzZWNyZXQ="}}');
CREATE TABLE upload_helper_schema (
	version INTEGER NOT NULL
);
INSERT INTO "upload_helper_schema" VALUES(1);
CREATE TABLE upload_helper_tasks (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	uid VARCHAR(64) NOT NULL, 
	version INTEGER NOT NULL, 
	tag VARCHAR(200) NOT NULL, 
	kind VARCHAR(50) NOT NULL, 
	title TEXT NOT NULL, 
	body TEXT NOT NULL, 
	handlers TEXT NOT NULL, 
	variables TEXT NOT NULL, 
	post_execute TEXT NOT NULL, 
	conditions TEXT NOT NULL, 
	retry BOOLEAN NOT NULL, 
	period DOUBLE, 
	state VARCHAR(20) NOT NULL, 
	waiting INTEGER, 
	next_run DOUBLE NOT NULL, 
	since DOUBLE, 
	attempt INTEGER NOT NULL, 
	failures INTEGER NOT NULL, 
	losses INTEGER NOT NULL, 
	cancel BOOLEAN NOT NULL, 
	owner TEXT NOT NULL, 
	boot TEXT NOT NULL, 
	lease_end DOUBLE, 
	lease DOUBLE, 
	progress DOUBLE, 
	step_name TEXT NOT NULL, 
	result TEXT NOT NULL, 
	error TEXT NOT NULL, 
	created DOUBLE NOT NULL, 
	started DOUBLE, 
	ended DOUBLE, 
	UNIQUE (uid)
);
INSERT INTO "upload_helper_tasks" VALUES(1,'running',1,'running','handlers','','','[{"action":"run","type":"set","method":"a=1"}]','{}','[]','',1,NULL,'RUNNING',NULL,1750000000.0,NULL,1,0,0,0,'','another-boot',1030.0,30.0,NULL,'','','',1750000000.0,1750000000.0,NULL);
INSERT INTO "upload_helper_tasks" VALUES(2,'waiting',1,'waiting','handlers','','','[{"action":"run","type":"set","method":"a=1"}]','{}','[]','',0,NULL,'ENQUEUED',0,1750000000.0,1750000000.0,0,0,0,0,'','',NULL,NULL,NULL,'','','',1750000000.0,NULL,NULL);
INSERT INTO "upload_helper_tasks" VALUES(3,'charging',1,'charging','handlers','','','[{"action":"run","type":"set","method":"a=1"}]','{}','[]','CHARGING;IDLE',0,NULL,'ENQUEUED',10,1750000000.0,1750000000.0,0,0,0,0,'','',NULL,NULL,NULL,'','','',1750000000.0,NULL,NULL);
INSERT INTO "upload_helper_tasks" VALUES(4,'ended',1,'ended','handlers','','','[{"action":"run","type":"set","method":"a=1"}]','{}','[]','',0,NULL,'CANCELLED',NULL,1750000000.0,NULL,0,0,0,1,'','',NULL,NULL,NULL,'','','',1750000000.0,NULL,1750000000.0);
INSERT INTO "upload_helper_tasks" VALUES(5,'periodic',1,'periodic','handlers','','','[{"action":"run","type":"set","method":"a=1"}]','{}','[]','',0,900.0,'ENQUEUED',0,1750000000.0,1750000000.0,0,0,0,0,'','',NULL,NULL,NULL,'','','',1750000000.0,NULL,NULL);
CREATE INDEX ix_upload_helper_tasks_tag ON upload_helper_tasks (tag);
CREATE INDEX upload_helper_tasks_waiting ON upload_helper_tasks (waiting, next_run, id);
CREATE INDEX upload_helper_tasks_state ON upload_helper_tasks (state, waiting, ended);
CREATE INDEX upload_helper_tasks_since ON upload_helper_tasks (since);
COMMIT;
