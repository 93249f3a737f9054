// Shows to each file in the list the SHA-256 of what the server has, so that a person can compare it with their own.

const section = document.getElementById("arrived");
const list = section.querySelector("upload-helper-list");
const digests = new Map(); // uid → promise of the digest, which never changes

async function ask(uid) {
  const answer = await fetch(section.dataset.digest + uid, { headers: { Accept: "application/json" } });
  if (!answer.ok) throw new Error(answer.statusText);
  return (await answer.json()).sha256;
}

function show(row) {
  const { uid } = row.dataset;
  const line = document.createElement("p");
  const code = document.createElement("code");
  code.textContent = section.dataset.computing;
  line.className = "digest";
  line.append("SHA-256 ", code);
  row.append(line);
  if (!digests.has(uid)) digests.set(uid, ask(uid));
  digests.get(uid).then(
    (digest) => { code.textContent = digest; },
    () => {
      digests.delete(uid);
      code.textContent = section.dataset.failed;
    },
  );
}

function showAll() {
  for (const row of list.querySelectorAll("[data-state=finished]:not(:has(.digest))")) show(row);
}

new MutationObserver(showAll).observe(list, { childList: true });
showAll();
